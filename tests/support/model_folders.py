"""Small whole model folders, with tokenizer and modules, written without torch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from bert_folders import bert_config, bert_tensors, write_folder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abdefhilnorstwy", "##e", "##s", "##land"]
WORDS += ["the", "ferry", "is", "where", "it", "to", "on"]


def word_pieces() -> Tokenizer:
    """BERT's tokenizer over `WORDS`."""
    ids = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.add_special_tokens(WORDS[:5])
    return tokenizer


def write_model(folder: Path, head: str, *, as_it_is: bool = False, **changes: Any) -> Path:
    """A small BERT whose tokenizer knows `WORDS`.

    ``as_it_is``: of a class whose tokenizer.json is taken with all of its stages.
    """
    config = bert_config(head, vocab_size=len(WORDS), **changes)
    tensors = bert_tensors(config, head)
    write_folder(folder, config, {name: 0.3 * tensor for name, tensor in tensors.items()})
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
    word_pieces().save(str(folder / "tokenizer.json"))
    kind = "PreTrainedTokenizerFast" if as_it_is else "BertTokenizer"
    settings = {"tokenizer_class": kind, "model_max_length": 16, "do_lower_case": True}
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **names}))
    (folder / "special_tokens_map.json").write_text(json.dumps(names))
    return folder


def write_sentence_model(folder: Path, **changes: Any) -> Path:
    """`write_model` of an encoder with sentence-transformers' files around it."""
    write_model(folder, "encoder", **changes)
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {
            "idx": place,
            "name": str(place),
            "path": f"{place}_{kind}" if place else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for place, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    settings = {"prompts": {"query": "to "}, "default_prompt_name": None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12}))
    (folder / "README.md").write_text("---\ntags:\n- a\n---\n# A model\n")
    return folder


def write_classifier(folder: Path, **changes: Any) -> Path:
    """`write_model` of a classifier with three classes."""
    return write_model(folder, "sequence-classification", **changes)


def write_trained(folder: Path) -> Path:
    """A pruned classifier with the records of a training: training.json and evaluation.json."""
    from sparsebert import prune

    dense = write_classifier(folder.with_name(folder.name + "-dense"))
    prune(dense, folder)
    shutil.rmtree(dense)
    raw = json.loads((folder / "config.json").read_text())
    arguments = {"task": "sst2", "seed": 1, "learning_rate": 3e-5, "max_length": 12, "epochs": 1}
    step = {"step": "finetune", "from": "a/b", "sparsebert": "0.1.0", "arguments": arguments}
    raw["sparsity"]["lineage"].append(step)
    (folder / "config.json").write_text(json.dumps(raw))
    scores = {"validation": {"accuracy": 91.5}}
    history = [
        {"step": 10 * n, "loss": 1 / (n + 1), "learning_rate": 1e-5, "grad_norm": 1.0}
        for n in range(1, 12)
    ]
    record = {
        "arguments": arguments,
        "max_length": 12,
        "rows": {"train": 60, "validation": 24},
        "steps": 110,
        "history": history,
        "scores": scores,
        "notes": ["none"],
    }
    (folder / "training.json").write_text(json.dumps(record))
    evaluation = {"task": "sst2", "scores": scores, "rows": {"validation": 24}}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    return folder
