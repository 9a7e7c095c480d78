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


def parse(model_type: str, head: Head = Head.ENCODER, **changes: Any) -> EncoderConfig:
    family = FAMILIES[model_type]
    raw = {family.fields.get(name, name): size for name, size in SIZES.items()}
    raw |= {"model_type": model_type, "architectures": [family.architecture(head)], **changes}
    return parse_config({k: v for k, v in raw.items() if v is not ...}, (), WHERE)
