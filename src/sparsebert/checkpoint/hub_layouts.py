"""The tensors of encoders that were published with their own code, in their family's terms.

Such folders name tensors differently, and fuse linear layers that read the same input. transformers
saves these families with their authors' tensors, so both layouts are current; sparsebert writes
transformers' own. `hub_configs` reads their config.json.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sparsebert.checkpoint.families import (
    GTE,
    JINA_BERT,
    JINA_BERT_CODE,
    JINA_EMBEDDINGS_V3,
    NOMIC_BERT,
    XLM_ROBERTA,
    Family,
)
from sparsebert.checkpoint.tensors import TensorFiles, TensorPart
from sparsebert.errors import CheckpointError

_SEPARATE = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


@dataclass(frozen=True)
class HubLayout:
    """How the authors' tensors map to a family's.

    ``names`` are pairs of a regular expression and its replacement, applied in order; ``splits``
    maps the end of a fused layer's name to those of the layers that its rows are split into
    equally.
    """

    names: tuple[tuple[str, str], ...]
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def parts(self, stored: str) -> tuple[str, ...]:
        """The family's names of the tensors that are stacked in ``stored``."""
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
    JINA_BERT.model_type: HubLayout(
        ((r"\bmlp\.wo\b", "output.dense"), (r"\bmlp\.layernorm\b", "output.LayerNorm")),
        {"mlp.gated_layers": ("intermediate.gate", "intermediate.dense")},
    ),
    JINA_BERT_CODE.model_type: HubLayout(
        (
            (r"\bself\.layer_norm_q\b", "self.query_LayerNorm"),
            (r"\bself\.layer_norm_k\b", "self.key_LayerNorm"),
            (r"\blayer_norm_1\b", "attention.residual.LayerNorm"),
            (r"\blayer_norm_2\b", "output.LayerNorm"),
            (r"\bmlp\.down_layer\b", "output.dense"),
        ),
        {"mlp.up_gated_layer": ("intermediate.dense", "intermediate.gate")},
    ),
    JINA_EMBEDDINGS_V3.model_type: HubLayout(
        (
            (r"\bencoder\.layers\b", "layers"),
            (r"\bemb_ln\b", "embeddings.LayerNorm"),
            (r"\bmixer\.out_proj\b", "self_attn.o_proj"),
            (r"\bnorm1\b", "post_attention_layernorm"),
            (r"\bnorm2\b", "post_mlp_layernorm"),
        ),
        {"mixer.Wqkv": _SEPARATE},
    ),
    XLM_ROBERTA.model_type: HubLayout(  # by the same authors, with counted positions
        (
            (r"\bencoder\.layers\b", "encoder.layer"),
            (r"\bemb_ln\b", "embeddings.LayerNorm"),
            (r"\bmixer\.out_proj\b", "attention.output.dense"),
            (r"\bnorm1\b", "attention.output.LayerNorm"),
            (r"\bnorm2\b", "output.LayerNorm"),
            (r"\bmlp\.fc1\b", "intermediate.dense"),
            (r"\bmlp\.fc2\b", "output.dense"),
        ),
        {"mixer.Wqkv": tuple(f"attention.self.{part}" for part in ("query", "key", "value"))},
    ),
}


def family_parts(
    shapes: Mapping[str, tuple[int, ...]],
    family: Family,
    where: Path,
    *,
    plain: Callable[[str], str] = str,
) -> dict[str, TensorPart]:
    """By their names in transformers' model of the family, the parts of stored tensors.

    ``shapes`` are those of the stored tensors, and ``plain`` turns a stored name into the authors'.
    Raises CheckpointError, naming ``where``, for a fused layer that cannot be split and for two
    tensors of one name.
    """
    layout = _LAYOUTS.get(family.model_type, HubLayout(()))
    found: dict[str, TensorPart] = {}
    for stored, shape in shapes.items():
        names = layout.parts(plain(stored))
        count = len(names)
        if count > 1 and (not shape or shape[0] % count):
            raise CheckpointError(
                f"{where}: tensor '{stored}' of shape {list(shape)} cannot be split into {count} "
                "equal parts."
            )
        for place, name in enumerate(names):
            if name in found:
                raise CheckpointError(f"{where} contains tensor '{name}' twice.")
            found[name] = TensorPart(stored, place, count)
    return found


def family_tensors(tensors: TensorFiles, family: Family) -> TensorFiles:
    """The tensors under transformers' names, still as views of the same files.

    Raises CheckpointError as `family_parts` does.
    """
    if family.model_type not in _LAYOUTS:
        return tensors
    return tensors.divided(family_parts(tensors.shapes(), family, tensors.paths[0].parent))
