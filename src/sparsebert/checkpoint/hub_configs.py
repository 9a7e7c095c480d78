"""The config.json of encoders that were published with their own code, in transformers' terms.

Such files have their own keys, and ``auto_map`` names Python code, which is never run. These keys
are translated, and any that ask for a computation other than the family's are refused.
`hub_layouts` does the same for the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.families import (
    FAMILIES,
    GTE,
    JINA_BERT,
    JINA_BERT_CODE,
    JINA_EMBEDDINGS_V3,
    NOMIC_BERT,
    XLM_ROBERTA,
    Family,
)
from sparsebert.checkpoint.json_files import read_object
from sparsebert.errors import CheckpointError, UnsupportedArchitectureError

CONFIG_NAME = "config.json"


def family_config(raw: dict[str, Any], where: Path) -> dict[str, Any]:
    """config.json in transformers' terms: ``raw`` itself unless its authors use their own.

    Raises CheckpointError for damaged values, UnsupportedArchitectureError for what the family does
    not compute.
    """
    model_type = raw.get("model_type")
    if model_type == NOMIC_BERT.model_type and "n_embd" in raw:
        return _nomic_bert(raw, where)
    if model_type in ("new", GTE.model_type) and not _OF_GTE.isdisjoint(raw):
        return _gte(raw, where)
    if model_type == "bert" and raw.get("position_embedding_type") == "alibi":
        return _jina_bert(raw, where)
    if model_type == XLM_ROBERTA.model_type and not _OF_JINA_XLM.isdisjoint(raw):
        return _jina_xlm_roberta(raw, where)
    return raw


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a folder as `family_config` gives it. Raises CheckpointError."""
    return family_config(read_object(folder / CONFIG_NAME), folder / CONFIG_NAME)


def check_transformers_reads(folder: Path) -> None:
    """Raise CheckpointError for a folder that transformers opens only by running its code."""
    raw = read_object(folder / CONFIG_NAME)
    told = family_config(raw, folder / CONFIG_NAME)
    family = FAMILIES.get(str(told.get("model_type")))
    if family is not None:
        check_in_transformers(family, folder)
    if told is not raw:
        raise CheckpointError(
            f"{folder} is not in transformers' own format, but needs code of its authors, which is "
            f"never run: run `sparsebert convert {folder} OUT` once, and use OUT."
        )


def check_in_transformers(family: Family, what: object) -> None:
    """Raise CheckpointError for a family that transformers has no classes for."""
    if not family.in_transformers:
        raise CheckpointError(
            f"{what} is a {family.display_name}, for which transformers has no classes: it can be "
            "converted, pruned in one shot, packed and run, but not trained, exported or run on "
            "torch."
        )


_KEPT = (  # with the same meaning in every family
    "bos_token_id",
    "classifier_dropout",
    "eos_token_id",
    "id2label",
    "initializer_range",
    "label2id",
    "num_labels",
    "pad_token_id",
    "problem_type",
    "sentence_transformers",
    "sparsity",
    "sbert_ce_default_activation_function",
    "tie_word_embeddings",
    "tokenizer_class",
    "type_vocab_size",
    "vocab_size",
)
_NOMIC = {  # the authors' keys, mapped to transformers'
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
    "attn_pdrop": "attention_probs_dropout_prob",
    "resid_pdrop": "hidden_dropout_prob",
}
# The values of each key with which the family computes the same. The first is the default of the
# authors' code; for the keys in `_NOMIC_MUST`, the family does not compute that one.
_NOMIC_ONLY: Mapping[str, tuple[Any, ...]] = {
    "activation_function": ("gelu", "swiglu"),
    "causal": (False,),
    "mlp_fc1_bias": (True, False),
    "mlp_fc2_bias": (True, False),
    "num_experts": (0, None),
    "parallel_block": (False,),
    "prenorm": (False,),
    "qkv_proj_bias": (True, False),
    "rotary_emb_fraction": (0.0, 1.0),
    "rotary_emb_interleaved": (False,),
    "rotary_emb_scale_base": (None,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "scale_attn_weights": (True,),
    "use_rms_norm": (False, None),
}
_NOMIC_MUST = (
    "activation_function",
    "mlp_fc1_bias",
    "mlp_fc2_bias",
    "qkv_proj_bias",
    "rotary_emb_fraction",
)


def _nomic_bert(raw: dict[str, Any], where: Path) -> dict[str, Any]:
    _check(raw, _NOMIC_ONLY, _NOMIC_MUST, where)
    config = {key: raw[key] for key in _KEPT if key in raw}
    config |= {ours: raw[theirs] for theirs, ours in _NOMIC.items() if theirs in raw}
    config["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": float(_number(raw, "rotary_emb_base", 1000, where)),
    }
    if raw.get("rotary_scaling_factor") is not None:
        # Longer texts would use another base, which depends on their length.
        trained = _number(raw, "max_trained_positions", 2048, where)
        positions = _number(raw, "n_positions", None, where)
        config["max_position_embeddings"] = int(min(trained, positions))
    classes = {"NomicBertForPreTraining": "NomicBertForMaskedLM"}
    return _named(config, raw, NOMIC_BERT, classes)


_OF_GTE = {"layer_norm_type", "logn_attention_scale", "pack_qkv", "unpad_inputs"}
_BERTS = (  # the keys that are BERT's
    "attention_probs_dropout_prob",
    "hidden_act",
    "hidden_dropout_prob",
    "hidden_size",
    "intermediate_size",
    "layer_norm_eps",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
)
_GTE_ONLY: Mapping[str, tuple[Any, ...]] = {
    "layer_norm_type": ("layer_norm",),
    "logn_attention_scale": (False,),
    "pack_qkv": (True,),
    "position_embedding_type": ("rope",),
}


def _gte(raw: dict[str, Any], where: Path) -> dict[str, Any]:
    _check(raw, _GTE_ONLY, (), where)
    config = {key: raw[key] for key in (*_KEPT, *_BERTS) if key in raw}
    config.setdefault("pad_token_id", 0)
    theta = float(_number(raw, "rope_theta", 10_000, where))
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    scaling = raw.get("rope_scaling")
    if scaling is not None:
        known = isinstance(scaling, dict) and scaling.keys() <= {"type", "factor"}
        if not known or scaling.get("type") != "ntk":
            raise UnsupportedArchitectureError(
                f"{where}: rope_scaling is {scaling!r}, but only the type 'ntk' with a factor is "
                "supported."
            )
        # "Fixed NTK": for heads of size d, the base is multiplied by the factor f, and all angles
        # are also divided by f^(2/d) (Su, https://kexue.fm/archives/9706, equation 6).
        factor = _number(scaling, "factor", None, where)
        size = _number(raw, "hidden_size", None, where) / _number(
            raw, "num_attention_heads", None, where
        )
        config["rope_parameters"] = {
            "rope_type": "linear",
            "rope_theta": theta * factor,
            "factor": factor ** (2 / size),
        }
    classes = {f"New{end}": f"Gte{end}" for end in _GTE_CLASSES}
    return _named(config, raw, GTE, classes)


_GTE_CLASSES = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification")


_JINA_ONLY: Mapping[str, tuple[Any, ...]] = {
    "feed_forward_type": ("original", "geglu", "reglu"),
    "hidden_act": ("gelu",),
}
_QUERY_KEY_NORM = "jina-bert-v2-qk-post-norm"  # the name of its repository of code


def _jina_bert(raw: dict[str, Any], where: Path) -> dict[str, Any]:
    _check(raw, _JINA_ONLY, ("feed_forward_type",), where)
    config = {key: raw[key] for key in (*_KEPT, *_BERTS) if key in raw}
    config["hidden_act"] = {"geglu": "gelu", "reglu": "relu"}[raw["feed_forward_type"]]
    named = raw.get("auto_map")
    codes = [raw.get("_name_or_path"), *(named.values() if isinstance(named, dict) else ())]
    own_norms = any(_QUERY_KEY_NORM in str(code) for code in codes)
    return _named(config, raw, JINA_BERT_CODE if own_norms else JINA_BERT, {})


_OF_JINA_XLM = {"lora_adaptations", "rotary_emb_base", "use_flash_attn"}
_JINA_XLM_ONLY: Mapping[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute", "rotary"),
    "truncate_dim": (None,),
}
_JINA_XLM_DEFAULTS = {
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "pad_token_id": 1,
    "type_vocab_size": 2,
}


def _jina_xlm_roberta(raw: dict[str, Any], where: Path) -> dict[str, Any]:
    _check(raw, _JINA_XLM_ONLY, (), where)
    config = {key: raw[key] for key in (*_KEPT, *_BERTS) if key in raw}
    config = {**_JINA_XLM_DEFAULTS, **config}
    if raw.get("load_trained_adapters", False):
        config["lora_adaptations"] = raw.get("lora_adaptations")
    if raw.get("position_embedding_type") != "rotary":
        return _named(config, raw, XLM_ROBERTA, {})
    theta = float(_number(raw, "rotary_emb_base", 10_000, where))
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    ends = (*_GTE_CLASSES, "ForQuestionAnswering")
    classes = {f"XLMRoberta{end}": f"JinaEmbeddingsV3{end}" for end in ends}
    return _named(config, raw, JINA_EMBEDDINGS_V3, classes)


def _named(
    config: dict[str, Any], raw: Mapping[str, Any], family: Family, classes: Mapping[str, str]
) -> dict[str, Any]:
    named = raw.get("architectures")
    if isinstance(named, list):
        config["architectures"] = [
            classes.get(name, name) if isinstance(name, str) else name for name in named
        ]
    dtype = raw.get("dtype", raw.get("torch_dtype"))
    if dtype is not None:
        config["dtype"] = dtype
    return {**config, "model_type": family.model_type}


def _check(
    raw: Mapping[str, Any],
    allowed: Mapping[str, tuple[Any, ...]],
    needed: tuple[str, ...],
    where: Path,
) -> None:
    for key, values in allowed.items():
        value = raw.get(key, values[0])
        wanted = values[1:] if key in needed else values
        if value not in wanted or type(value) not in map(type, wanted):
            raise UnsupportedArchitectureError(
                f"{where}: {key} is {value!r}, but only {' or '.join(map(repr, wanted))} is "
                "supported."
            )


def _number(raw: Mapping[str, Any], key: str, default: float | None, where: Path) -> float:
    value = raw.get(key, default)
    if type(value) not in (int, float) or not 0 < value < 1e9:
        raise CheckpointError(f"{where}: {key} must be a positive number, not {value!r}.")
    return float(value)
