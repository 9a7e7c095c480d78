"""Every key in a model folder's files that transformers 5 or sentence-transformers 6 reads.

Each is honoured (some module reads it), harmless (it changes no number that sparsebert computes),
or refused if it asks for something that sparsebert does not compute. Those libraries do not read
other keys, or refuse them themselves. Tests compare the tables with the libraries' own source, so
that keys in a new version are noticed; each gets an entry here and, if honoured, a reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparsebert.errors import CheckpointError, SparsebertError


@dataclass(frozen=True)
class Refusal:
    """Why a key is refused, for the message, unless its value is one of ``allowed``.

    An empty value (null, false, 0, nothing in it) asks for nothing unless ``even_empty``.
    """

    why: str
    allowed: tuple[Any, ...] = ()
    even_empty: bool = False


@dataclass(frozen=True)
class KnownKeys:
    """The keys of one file. ``others`` says why any other key is refused, "" if it is ignored."""

    honoured: frozenset[str] = frozenset()
    harmless: frozenset[str] = frozenset()
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    others: str = ""

    @property
    def all(self) -> frozenset[str]:
        """Every key with an entry."""
        return self.honoured | self.harmless | frozenset(self.refused)

    def check(
        self,
        given: Mapping[str, Any],
        where: object,
        error: type[SparsebertError] = CheckpointError,
    ) -> None:
        """Raise ``error``, naming ``where``, key and reason, for what is not computed."""
        for key, refusal in self.refused.items():
            value = given.get(key)
            asked = value or (refusal.even_empty and key in given)
            if asked and value not in refusal.allowed:
                shown = repr(value) if isinstance(value, str | int | float | None) else "set"
                raise error(f"{where}: {key} is {shown}, {refusal.why}.")
        unknown = sorted(set(given) - self.all) if self.others else []
        if unknown:
            raise error(f"{where}: {unknown[0]} is set, {self.others}.")


_DROPOUT = (
    "attention_dropout",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "classifier_dropout_prob",
    "cls_dropout",
    "dropout",
    "embedding_dropout",
    "hidden_dropout_prob",
    "mlp_dropout",
    "pooler_dropout",
    "qa_dropout",
    "seq_classif_dropout",
    "summary_first_dropout",
    "summary_last_dropout",
)
_ARITHMETIC = (  # how, and in which precision, transformers computes the same
    "_attn_implementation",
    "attention_chunk_size",  # of a mask that no encoder uses
    "attn_implementation",
    "chunk_size_feed_forward",
    "deterministic_flash_attn",
    "distributed_config",
    "dtype",
    "experts_implementation",
    "gradient_checkpointing",
    "reference_compile",
    "repad_logits_with_grad",
    "torch_dtype",
)
_OUTPUTS = (
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "tie_last_hidden_states",
    "use_cache",
)
_NOBODY = "which neither sparsebert nor sentence-transformers 6 knows: remove it"
_FETCHING = (  # where a model is downloaded from
    "_commit_hash",
    "_from_auto",
    "_from_pipeline",
    "cache_dir",
    "code_revision",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
    "trust_remote_code",
    "use_auth_token",
)

CONFIG = KnownKeys(
    honoured=frozenset(
        {
            "architectures",
            "id2label",
            "model_type",
            "num_labels",
            "problem_type",
            "sbert_ce_default_activation_function",
            "sentence_transformers",
            "tie_word_embeddings",
            "tokenizer_class",
            # the encoder, in BERT's terms and in those of other families
            "activation",
            "dim",
            "embedding_size",
            "hidden_act",
            "hidden_activation",
            "hidden_dim",
            "hidden_size",
            "intermediate_size",
            "layer_norm_eps",
            "max_position_embeddings",
            "n_heads",
            "n_layers",
            "norm_eps",
            "num_attention_heads",
            "num_hidden_layers",
            "pad_token_id",
            "relative_attention_num_buckets",
            "type_vocab_size",
            "vocab_size",
            # ModernBERT
            "attention_bias",
            "classifier_activation",
            "classifier_bias",
            "classifier_pooling",
            "decoder_bias",
            "global_attn_every_n_layers",
            "global_rope_theta",
            "head_dim",
            "layer_types",
            "local_attention",
            "local_rope_theta",
            "mlp_bias",
            "norm_bias",
            "rope_parameters",
            "rope_scaling",
            "rope_theta",
            "sliding_window",
            # ALBERT
            "inner_group_num",
            "num_hidden_groups",
            # DeBERTa
            "attention_head_size",
            "legacy",
            "max_relative_positions",
            "norm_rel_ebd",
            "pooler_hidden_act",
            "pooler_hidden_size",
            "pos_att_type",
            "position_biased_input",
            "position_buckets",
            "relative_attention",
            "share_att_key",
            # ERNIE
            "task_type_vocab_size",
            "use_task_id",
        }
    ),
    harmless=frozenset(
        {
            *_DROPOUT,
            *_ARITHMETIC,
            *_OUTPUTS,
            "_commit_hash",
            "_name_or_path",
            "label2id",
            "name_or_path",
            "transformers_version",
            "partial_rotary_factor",  # all families rotate whole heads
            # token ids: sparsebert takes them from the tokenizer
            "bos_token_id",
            "cls_token_id",
            "eos_token_id",
            "sep_token_id",
            # how new weights and losses are made
            "initializer_cutoff_factor",
            "initializer_range",
            "sinusoidal_pos_embds",
            "sparse_pred_ignore_index",
            "sparse_prediction",
            # DeBERTa's convolution, which is refused
            "conv_act",
            "conv_groups",
            # ELECTRA's head for multiple choice, which is refused by its name
            "summary_activation",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
        }
    ),
    refused={
        "fusion_config": Refusal("but layers that transformers fuses are not supported"),
        "is_causal": Refusal("but only attention in both directions is supported"),
        "is_decoder": Refusal("but decoders are not supported, only encoders"),
        "is_encoder_decoder": Refusal("but only encoders are supported"),
        "add_cross_attention": Refusal("but cross-attention is not supported, only encoders"),
        "auto_map": Refusal(
            "so the model brings its own code, which sparsebert never runs; only the architectures "
            "of transformers itself are supported"
        ),
        "quantization_config": Refusal(
            "so the weights are quantised; start from the original float checkpoint"
        ),
        "lora_adaptations": Refusal(
            "so each task has its own weights: merge one of them with `sparsebert convert MODEL "
            "OUT --task TASK`, and use OUT"
        ),
        "position_embedding_type": Refusal("but only 'absolute' is supported", ("absolute",)),
        "conv_kernel_size": Refusal(
            "but DeBERTa v2's convolution after the first layer is not supported (v3 has none)"
        ),
        "per_layer_config": Refusal("but layers of different sizes are not supported"),
        "transformers_weights": Refusal(
            "but weights are only read from model.safetensors", ("model.safetensors",)
        ),
    },
)

_TOKENIZER_SWITCHES = frozenset(
    {
        "add_prefix_space",
        "do_lower_case",
        "keep_accents",
        "model_input_names",
        "model_max_length",
        "split_by_punct",
        "split_special_tokens",
        "strip_accents",
        "tokenize_chinese_chars",
        "trim_offsets",
        "truncation_side",
    }
)
TOKENIZER_CONFIG = KnownKeys(
    honoured=_TOKENIZER_SWITCHES
    | {
        "added_tokens_decoder",
        "additional_special_tokens",
        "backend",
        "bos_token",
        "cls_token",
        "eos_token",
        "extra_special_tokens",
        "mask_token",
        "max_len",
        "model_specific_special_tokens",
        "pad_token",
        "sep_token",
        "tokenizer_class",
        "unk_id",
        "unk_token",
    },
    harmless=frozenset(
        {
            *_FETCHING,
            # decoding and chat
            "chat_control_tokens",
            "chat_template",
            "clean_up_tokenization_spaces",
            "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
            "errors",
            "response_schema",
            "response_template",
            # padding, and lengths that are only read per call
            "max_length",
            "pad_to_multiple_of",
            "pad_token_type_id",
            "padding_side",
            "stride",
            "tokenizer_padding",
            "tokenizer_truncation",
            "truncation_strategy",
            # overruled by the class, or by a tokenizer.json where there has to be one
            "add_bos_token",
            "add_eos_token",
            "legacy",
            "post_processor",
            # where it came from, and how it was made
            "_json_padding",
            "_json_truncation",
            "_spm_precompiled_charsmap",
            "files_loaded",
            "fix_mistral_regex",
            "gguf_file",
            "is_local",
            "merges_file",
            "name_or_path",
            "processor_class",
            "special_tokens_map_file",
            "tokenizer",
            "tokenizer_file",
            "use_fast",
            "verbose",
            "vocab_file",
        }
    ),
    refused={
        "auto_map": Refusal(
            "so the tokenizer brings its own code, which sparsebert never runs; only the classes "
            "of transformers itself are supported"
        ),
        "fast_tokenizer_files": Refusal(
            "but sparsebert only reads tokenizer.json, not one for each version"
        ),
        "init_inputs": Refusal("but sparsebert builds a tokenizer from its files alone"),
        "merges": Refusal("but sparsebert reads them from tokenizer.json or merges.txt"),
        "tokenizer_object": Refusal("but sparsebert builds a tokenizer from its files alone"),
        "vocab": Refusal("but sparsebert reads it from tokenizer.json or a vocabulary file"),
    },
)

# The settings that the Transformer module passes to transformers: to its tokenizer,
PROCESSOR_KWARGS = KnownKeys(
    honoured=_TOKENIZER_SWITCHES,
    harmless=TOKENIZER_CONFIG.harmless,
    others="but sparsebert only reads that from tokenizer_config.json: set it there",
)
# to its config, to its model,
_WRITE_IT = (
    "but sparsebert reads the settings of a model only from its config.json: set it there, or "
    "remove it if it changes no answer"
)
CONFIG_KWARGS = KnownKeys(harmless=CONFIG.harmless | {*_FETCHING}, others=_WRITE_IT)
MODEL_KWARGS = KnownKeys(
    harmless=CONFIG_KWARGS.harmless
    | {"add_pooling_layer", "device_map", "low_cpu_mem_usage", "use_safetensors", "weights_only"},
    others=_WRITE_IT,
)
# and with each text.
PROCESSING_KWARGS = KnownKeys(
    honoured=frozenset({"max_length"}),
    harmless=frozenset(
        {"pad_to_multiple_of", "padding", "padding_side", "return_attention_mask", "return_tensors"}
    ),
    refused={
        "truncation": Refusal(
            "but sparsebert truncates the longest text", (True, "longest_first"), even_empty=True
        )
    },
    others="which sparsebert does not do",
)
SENTENCE_CONFIG = KnownKeys(
    honoured=frozenset(
        {
            "config_args",
            "config_kwargs",
            "do_lower_case",
            "document_length",
            "max_seq_length",
            "modality_config",
            "model_args",
            "model_kwargs",
            "module_output_name",
            "processing_kwargs",
            "processor_kwargs",
            "query_expansion",
            "query_length",
            "tokenizer_args",
            "transformer_task",
        }
    ),
    harmless=frozenset({"backend", "cache_dir", "unpad_inputs"}),
    refused={
        "tokenizer_name_or_path": Refusal(
            "but sparsebert reads the folder's own tokenizer: copy that one's files into the folder"
        ),
    },
    others=_NOBODY,
)
POOLING = KnownKeys(
    honoured=frozenset(
        {
            "include_prompt",
            "pooling_mode",
            "pooling_mode_cls_token",
            "pooling_mode_lasttoken",
            "pooling_mode_max_tokens",
            "pooling_mode_mean_sqrt_len_tokens",
            "pooling_mode_mean_tokens",
            "pooling_mode_weightedmean_tokens",
        }
    ),
    harmless=frozenset({"embedding_dimension", "word_embedding_dimension"}),
    others=_NOBODY,
)
NORMALIZE = KnownKeys(honoured=frozenset({"module_input_name", "module_output_name"}))
DENSE = KnownKeys(
    honoured=frozenset(
        {
            "activation_function",
            "bias",
            "in_features",
            "module_input_name",
            "module_output_name",
            "out_features",
            "use_residual",
        }
    ),
)
LAYER_NORM = KnownKeys(honoured=frozenset({"dimension"}))
SPLADE_POOLING = KnownKeys(
    honoured=frozenset({"activation_function", "pooling_strategy"}),
    harmless=frozenset({"chunk_size", "embedding_dimension", "word_embedding_dimension"}),
    others=_NOBODY,
)
SPARSE_TABLE = KnownKeys(
    harmless=frozenset({"frozen"}),
    refused={"path": Refusal("a file of weights by token: save the model with a tensor of them")},
    others=_NOBODY,
)
DROPOUT = KnownKeys(harmless=frozenset({"dropout"}))
MODULES = KnownKeys(
    honoured=frozenset({"path", "type"}), harmless=frozenset({"idx", "kwargs", "name"})
)
ROUTER = KnownKeys(honoured=frozenset({"parameters", "structure", "types"}), others=_NOBODY)
ROUTER_PARAMETERS = KnownKeys(
    honoured=frozenset({"allow_empty_key", "default_route", "route_mappings"}), others=_NOBODY
)
MULTI_VECTOR_MASK = KnownKeys(
    honoured=frozenset({"keep_only_token_ids", "skiplist_tasks", "skiplist_words"}), others=_NOBODY
)
SENTENCE_TRANSFORMERS = KnownKeys(
    honoured=frozenset(
        {
            "activation_fn",
            "default_prompt_name",
            "max_active_dims",
            "model_type",
            "prompts",
            "similarity_fn_name",
            "truncate_dim",
            # multi-vector models of PyLate
            "attend_to_expansion_tokens",
            "attend_to_mask_tokens",
            "do_query_expansion",
            "document_length",
            "document_prefix",
            "query_expansion",
            "query_length",
            "query_prefix",
            "skiplist_words",
        }
    ),
    harmless=frozenset({"__version__", "keep_in_fp32_modules", "requirements"}),
)
