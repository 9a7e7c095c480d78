"""Small BERT folders of random weights, as transformers itself makes and saves them."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np

from sentences import SENTENCES

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ARCHITECTURES = {
    "encoder": "BertModel",
    "sequence-classification": "BertForSequenceClassification",
    "question-answering": "BertForQuestionAnswering",
    "token-classification": "BertForTokenClassification",
    "masked-lm": "BertForMaskedLM",
}


def vocabulary() -> list[str]:
    """A small WordPiece vocabulary: the characters, some endings, and most words of SENTENCES.

    Every seventh word is left out, so that texts have words in pieces too.
    """
    characters = string.ascii_lowercase + string.digits + string.punctuation
    text = " ".join(SENTENCES).lower()
    for mark in string.punctuation:
        text = text.replace(mark, " ")
    words = sorted({word for word in text.split() if len(word) > 1})
    kept = [word for place, word in enumerate(words) if place % 7]
    endings = ["##s", "##ed", "##ing", "##er", "##ly", "##est"]
    pieces = [f"##{character}" for character in string.ascii_lowercase + string.digits]
    return list(dict.fromkeys([*SPECIAL_TOKENS, *characters, *pieces, *endings, *kept]))


def make_tiny_bert(
    folder: Path,
    head: str = "encoder",
    *,
    hidden_size: int = 32,
    num_hidden_layers: int = 2,
    num_attention_heads: int = 4,
    intermediate_size: int = 72,
    max_position_embeddings: int = 64,
    num_labels: int = 3,
    seed: int = 0,
    lower_case: bool = True,
    **config: Any,
) -> Path:
    """Write a model folder and return it; ``config`` is what else BertConfig takes."""
    import torch
    import transformers
    from transformers import BertConfig, BertTokenizerFast

    words = vocabulary()
    settings = BertConfig(
        vocab_size=len(words),
        hidden_size=hidden_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        intermediate_size=intermediate_size,
        max_position_embeddings=max_position_embeddings,
        num_labels=num_labels if head.endswith("-classification") else 2,
        **config,
    )
    transformers.utils.logging.disable_progress_bar()
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = getattr(transformers, ARCHITECTURES[head])(settings).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # transformers starts with small weights, zero biases and unit norms, beside which a
            # wrong bias or a wrong row would not show.
            noise = torch.randn_like(parameter)
            if name.endswith("LayerNorm.weight"):
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.2 * noise)
            else:
                parameter.copy_(noise / np.sqrt(parameter.shape[-1]))
    torch.random.set_rng_state(state)
    model.save_pretrained(folder)
    tokenizer = BertTokenizerFast(
        vocab={word: index for index, word in enumerate(words)},
        do_lower_case=lower_case,
        model_max_length=max_position_embeddings,
    )
    tokenizer.save_pretrained(folder)
    return folder


def write_vocabulary_folder(folder: Path, words: list[str], **settings: Any) -> Path:
    """A folder with only ``vocab.txt`` and ``tokenizer_config.json``, as old models have them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
