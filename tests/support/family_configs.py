"""A small config.json of each family, as it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparsebert.checkpoint.config import EncoderConfig, parse_config
from sparsebert.checkpoint.families import FAMILIES, Head

# Those that transformers has classes for. Of these, what is another one under a new name or with
# another's positions; and all others.
IN_TRANSFORMERS = [name for name, family in FAMILIES.items() if family.in_transformers]
RENAMED = ("xlm-roberta", "camembert", "data2vec-text", "ernie", "jina_embeddings_v3")
DISTINCT = [name for name in IN_TRANSFORMERS if name not in RENAMED]
WHERE = Path("folder/config.json")
SIZES = {
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 18,
    "pad_token_id": 1,
}
# What every model of a family's says: those of microsoft/deberta-v3-base, but for the sizes.
USUAL: dict[str, dict[str, Any]] = {
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 12,
        "max_relative_positions": 32,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": "p2c|c2p",
        "position_biased_input": False,
        "type_vocab_size": 0,
    }
}


def parse(model_type: str, head: Head = Head.ENCODER, **changes: Any) -> EncoderConfig:
    family = FAMILIES[model_type]
    raw = {family.fields.get(name, name): size for name, size in SIZES.items()}
    raw |= USUAL.get(model_type, {})
    raw |= {"model_type": model_type, "architectures": [family.architecture(head)], **changes}
    return parse_config({k: v for k, v in raw.items() if v is not ...}, (), WHERE)
