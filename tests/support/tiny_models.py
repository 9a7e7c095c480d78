"""Small folders of random weights of each family, as transformers itself makes and saves them."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from family_configs import USUAL
from sentences import SENTENCES
from sparsebert.checkpoint.families import FAMILIES, Head

TinyBert = Callable[..., Path]  # the fixture tiny_bert

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


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
    model_type: str = "bert",
    hidden_size: int = 32,
    num_hidden_layers: int = 2,
    num_attention_heads: int = 4,
    intermediate_size: int = 72,
    max_position_embeddings: int = 64,
    num_labels: int = 3,
    seed: int = 0,
    lower_case: bool = True,
    tokenizer_of: str | None = None,
    **config: Any,
) -> Path:
    """Write a model folder and return it; ``config`` is what else the family's config takes.

    The tokenizer is of the family's kind, or of another's, ``tokenizer_of``.
    """
    import torch
    import transformers

    family = FAMILIES[model_type]
    transformers.utils.logging.disable_progress_bar()
    tokenizer = make_tokenizer(tokenizer_of or model_type, lower_case)
    skipped = tokenizer.pad_token_id + 1 if family.positions == "counted" else 0
    tokenizer.model_max_length = max_position_embeddings - skipped
    sizes = {
        "hidden_size": hidden_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads,
        "intermediate_size": intermediate_size,
        "max_position_embeddings": max_position_embeddings,
    }
    settings = transformers.AutoConfig.for_model(
        model_type,
        **{family.fields.get(name, name): size for name, size in sizes.items()},
        **_TOKENS[model_type](tokenizer),
        vocab_size=len(tokenizer),
        num_labels=num_labels if head.endswith("-classification") else 2,
        **{**USUAL.get(model_type, {}), **config},
    )
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = getattr(transformers, family.architecture(Head(head)))(settings).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # transformers starts with small weights, zero biases and unit norms, beside which a
            # wrong bias or a wrong row would not show.
            noise = torch.randn_like(parameter)
            if parameter.dim() == 1 and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.2 * noise)
            else:
                parameter.copy_(noise / np.sqrt(parameter.shape[-1]))
    torch.random.set_rng_state(state)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tokenizer(model_type: str, lower_case: bool) -> Any:
    """A tokenizer of the kind that the family's models come with."""
    import transformers

    def wordpiece(names: list[str]) -> dict[str, int]:
        words = [*names, *(word for word in vocabulary() if word not in SPECIAL_TOKENS)]
        return {word: index for index, word in enumerate(words)}

    if model_type in ("bert", "distilbert", "electra", "ernie", "nomic_bert"):
        # ELECTRA's and DistilBERT's are BERT's under other names.
        return transformers.BertTokenizerFast(
            vocab=wordpiece(SPECIAL_TOKENS), do_lower_case=lower_case
        )
    names = ["<s>", "<pad>", "</s>", "<unk>"]
    if model_type == "mpnet":
        return transformers.MPNetTokenizerFast(
            vocab=wordpiece([*names, "<mask>", "[UNK]"]), do_lower_case=lower_case
        )
    if model_type in ("roberta", "data2vec-text"):
        return transformers.RobertaTokenizerFast(*_byte_pairs([*names, "<mask>"]))
    if model_type == "deberta-v2":
        ends = {"[PAD]": 0.0, "[CLS]": 0.0, "[SEP]": 0.0, "[UNK]": 0.0}
        pieces = _unigrams([*ends])
        return transformers.DebertaV2TokenizerFast(vocab=[*pieces[:-1], ("[MASK]", 0.0)])
    if model_type in ("xlm-roberta", "gte", "jina_embeddings_v3"):
        return transformers.XLMRobertaTokenizerFast(vocab=_unigrams([*names]))
    if model_type == "camembert":
        names = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"]
        return transformers.CamembertTokenizerFast(vocab=_unigrams(names))
    if model_type == "albert":
        pieces = _unigrams(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"])
        return transformers.AlbertTokenizerFast(vocab=pieces, do_lower_case=lower_case)
    assert model_type == "modernbert"
    return _neox_tokenizer()


def _byte_pairs(names: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of byte pairs, as RoBERTa's and ModernBERT's, learnt from SENTENCES."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=names,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    return learnt["vocab"], [tuple(pair) for pair in learnt["merges"]]


def _unigrams(names: list[str]) -> list[tuple[str, float]]:
    """Pieces and their logarithmic probabilities, as XLM-R's: the words and characters."""
    characters = sorted({character for text in SENTENCES for character in text if character != " "})
    words = sorted({f"\u2581{word}" for text in SENTENCES for word in text.split()})
    kept = [word for place, word in enumerate(words) if place % 7]
    pieces = [
        ("\u2581", -4.0),
        *((each, -8.0) for each in characters),
        *((each, -6.0) for each in kept),
    ]
    return [*((name, 0.0) for name in names), *pieces, ("<mask>", 0.0)]


def _neox_tokenizer() -> Any:
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    words, merges = _byte_pairs(SPECIAL_TOKENS)
    backend = Tokenizer(models.BPE(words, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(name, words[name]) for name in ("[CLS]", "[SEP]")],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "attention_mask"],
    )


def _pad(tokenizer: Any) -> dict[str, int]:
    return {"pad_token_id": tokenizer.pad_token_id}


def _ends(tokenizer: Any) -> dict[str, int]:
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    return {**_pad(tokenizer), "bos_token_id": first, "eos_token_id": last}


def _all_ends(tokenizer: Any) -> dict[str, int]:
    names = _ends(tokenizer)
    return {**names, "cls_token_id": names["bos_token_id"], "sep_token_id": names["eos_token_id"]}


# The ids of special tokens that a family's config.json names.
_TOKENS = {
    "bert": _pad,
    "distilbert": _pad,
    "electra": _pad,
    "albert": _ends,
    "roberta": _ends,
    "xlm-roberta": _ends,
    "camembert": _ends,
    "data2vec-text": _ends,
    "ernie": _pad,
    "deberta-v2": _pad,
    "nomic_bert": _pad,
    "gte": _ends,
    "jina_embeddings_v3": _ends,
    "mpnet": _ends,
    "modernbert": _all_ends,
}


def write_vocabulary_folder(folder: Path, words: list[str], **settings: Any) -> Path:
    """A folder with only ``vocab.txt`` and ``tokenizer_config.json``, as old models have them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
