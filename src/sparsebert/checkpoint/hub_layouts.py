"""Encoders that were published with code of their own, before transformers had their family.

Their folders spell tensors and settings otherwise: linear layers that read the same input are
fused, config.json has keys of its own, and ``auto_map`` names Python code. That code is never run.
What a folder says is read by its keys and told in transformers' words, and whatever asks for
another computation than the family's is refused. transformers saves these families with the
tensors of their authors, so both spellings are current; sparsebert writes transformers' own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.families import GTE, NOMIC_BERT, Family
from sparsebert.checkpoint.json_files import read_object
from sparsebert.checkpoint.tensors import TensorFiles
from sparsebert.errors import CheckpointError, UnsupportedArchitectureError

CONFIG_NAME = "config.json"

_SEPARATE = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


@dataclass(frozen=True)
class HubLayout:
    """How the authors' tensors map to a family's.

    ``names`` are pairs of a regular expression and what it is replaced by, applied in order;
    ``splits`` maps the end of a layer's name to the ends of the layers that its rows are cut into,
    in equal parts.
    """

    names: tuple[tuple[str, str], ...]
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def parts(self, stored: str) -> tuple[str, ...]:
        """The family's names of the tensors that ``stored`` holds, one below the other."""
        name = stored
        for pattern, replacement in self.names:
            name = re.sub(pattern, replacement, name)
        stem, _, end = name.rpartition(".")
        for fused, parts in self.splits.items():
            if stem.endswith(f".{fused}"):
                return tuple(f"{stem.removesuffix(fused)}{part}.{end}" for part in parts)
        return (name,)


_LAYOUTS = {
    NOMIC_BERT.model_type: HubLayout(
        (
            (r"^bert\.", ""),
            (r"\bencoder\.layers\b", "layers"),
            (r"\bemb_ln\b", "embeddings.LayerNorm"),
            (r"\battn\.out_proj\b", "self_attn.o_proj"),
            (r"\bmlp\.fc11\b", "mlp.up_proj"),
            (r"\bmlp\.fc12\b", "mlp.gate_proj"),
            (r"\bmlp\.fc2\b", "mlp.down_proj"),
            (r"\bnorm1\b", "post_attention_layernorm"),
            (r"\bnorm2\b", "post_mlp_layernorm"),
        ),
        {"attn.Wqkv": _SEPARATE},
    ),
    GTE.model_type: HubLayout(
        (
            (r"^new\.", ""),
            (r"\bencoder\.layer\b", "layers"),
            (r"\battention\.o_proj\b", "self_attn.o_proj"),
            (r"\battn_ln\b", "post_attention_layernorm"),
            (r"\bmlp_ln\b", "post_mlp_layernorm"),
            (r"\blm_head\.norm\b", "lm_head.layer_norm"),
        ),
        {
            "attention.qkv_proj": _SEPARATE,
            "mlp.up_gate_proj": ("mlp.up_proj", "mlp.gate_proj"),
        },
    ),
}


def family_names(stored: str, family: Family) -> tuple[str, ...]:
    """What transformers' model of the family calls a tensor of a file.

    Several names are those of the layers that a fused one is cut into, in equal parts of its rows.
    """
    layout = _LAYOUTS.get(family.model_type)
    return layout.parts(stored) if layout else (stored,)


def family_tensors(tensors: TensorFiles, family: Family) -> TensorFiles:
    """The tensors by their `family_names`: views of the same files, as ever.

    Raises CheckpointError for a fused layer that cannot be cut.
    """
    if family.model_type not in _LAYOUTS:
        return tensors
    return tensors.divided({name: family_names(name, family) for name in tensors})


def family_config(raw: dict[str, Any], where: Path) -> dict[str, Any]:
    """config.json in transformers' words: ``raw`` itself unless its authors have their own.

    Raises CheckpointError for damaged values, UnsupportedArchitectureError for what the family does
    not compute.
    """
    if raw.get("model_type") == NOMIC_BERT.model_type and "n_embd" in raw:
        return _nomic_bert(raw, where)
    if raw.get("model_type") in ("new", GTE.model_type) and not _OF_GTE.isdisjoint(raw):
        return _gte(raw, where)
    return raw


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a folder as `family_config` gives it. Raises CheckpointError."""
    return family_config(read_object(folder / CONFIG_NAME), folder / CONFIG_NAME)


def check_transformers_reads(folder: Path) -> None:
    """CheckpointError for a folder that transformers opens only by running its own code."""
    raw = read_object(folder / CONFIG_NAME)
    if family_config(raw, folder / CONFIG_NAME) is not raw:
        raise CheckpointError(
            f"{folder} describes its model for code of its authors', which is never run, and not "
            f"for transformers: run `sparsebert convert {folder} OUT` once, and use OUT."
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
_NOMIC = {  # the authors' key to transformers'
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
    "attn_pdrop": "attention_probs_dropout_prob",
    "resid_pdrop": "hidden_dropout_prob",
}
# What a key may be for the family to compute the same. The first value is the default of the
# authors' code; for those of `_NOMIC_MUST` it is none that the family computes.
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
        # Longer texts would get another base, which depends on their length.
        trained = _number(raw, "max_trained_positions", 2048, where)
        positions = _number(raw, "n_positions", None, where)
        config["max_position_embeddings"] = int(min(trained, positions))
    classes = {"NomicBertForPreTraining": "NomicBertForMaskedLM"}
    return _named(config, raw, NOMIC_BERT, classes)


_OF_GTE = {"layer_norm_type", "logn_attention_scale", "pack_qkv", "unpad_inputs"}
_GTE = (
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
    config = {key: raw[key] for key in (*_KEPT, *_GTE) if key in raw}
    config.setdefault("pad_token_id", 0)
    theta = float(_number(raw, "rope_theta", 10_000, where))
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    scaling = raw.get("rope_scaling")
    if scaling is not None:
        known = isinstance(scaling, dict) and scaling.keys() <= {"type", "factor"}
        if not known or scaling.get("type") != "ntk":
            raise UnsupportedArchitectureError(
                f"{where}: rope_scaling is {scaling!r}, and only the type 'ntk' with a factor is "
                "supported."
            )
        # "Fixed NTK": a base larger by the factor f, and all angles of a head of d smaller by
        # f^(2/d) besides (Su, https://kexue.fm/archives/9706, equation 6).
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
                f"{where}: {key} is {value!r}, and only {' or '.join(map(repr, wanted))} is "
                "supported."
            )


def _number(raw: Mapping[str, Any], key: str, default: float | None, where: Path) -> float:
    value = raw.get(key, default)
    if type(value) not in (int, float) or not 0 < value < 1e9:
        raise CheckpointError(f"{where}: {key} must be a positive number, not {value!r}.")
    return float(value)
