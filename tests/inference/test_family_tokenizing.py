"""Texts to token ids in every family: those of transformers, with each kind of tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from family_configs import IN_TRANSFORMERS
from sentence_folders import with_modules
from sentences import SENTENCES
from sparsebert import load, pack, prune
from sparsebert.checkpoint.families import FAMILIES
from sparsebert.checkpoint.tokenizer import read_tokenizer
from sparsebert.errors import CheckpointError
from sparsebert.inference.texts import as_texts
from tricky_texts import TRICKY, tokenizer_of

transformers = pytest.importorskip("transformers")
OTHERS = [name for name in IN_TRANSFORMERS if name != "bert"]
TEXTS = (*SENTENCES, *TRICKY, "the harbour <mask> at noon", "a [MASK] b")


def tokens_of(folder: Path, texts: Any) -> list[list[int]]:
    encoded = tokenizer_of(folder, 2000).encode(as_texts(texts))
    return [tokens.ids.tolist() for tokens in encoded]


def special_token(folder: Path, name: str) -> str:
    stored = read_tokenizer(folder)
    assert stored is not None
    return stored.special_tokens[name]


@pytest.mark.parametrize("family", OTHERS)
def test_ids_are_those_of_transformers(tiny_bert, family: str) -> None:
    folder = tiny_bert(model_type=family)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokens_of(folder, TEXTS) == theirs(list(TEXTS))["input_ids"]
    pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
    expected = theirs([a for a, _ in pairs], [b for _, b in pairs])
    assert tokens_of(folder, pairs) == expected["input_ids"]
    for name in ("mask_token", "cls_token", "sep_token", "pad_token"):
        assert special_token(folder, name) == getattr(theirs, name)


@pytest.mark.parametrize("family", OTHERS)
def test_pairs_reach_the_model(tiny_bert, family: str) -> None:
    """With token types where the model has a table of them, and with zeros where it has none."""
    torch = pytest.importorskip("torch")
    folder = tiny_bert("sequence-classification", model_type=family)
    pairs = [(SENTENCES[0], SENTENCES[1]), (SENTENCES[2], SENTENCES[3])]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ours = load(folder).logits(pairs)
    for row, pair in zip(ours, pairs, strict=True):
        inputs = tokenizer(*pair, return_tensors="pt", truncation=True)
        if not FAMILIES[family].token_types:
            inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            theirs = model(**inputs).logits[0].numpy()
        assert np.abs(row - theirs).max() < 2e-4


def only(folder: Path, source: Path, model_type: str, names: tuple[str, ...]) -> Path:
    """A folder with some of the files of another, and a config.json that says what it is."""
    folder.mkdir()
    for name in names:
        shutil.copy(source / name, folder)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


def byte_pairs(folder: Path, source: Path) -> Path:
    """vocab.json and merges.txt, as RoBERTa's folders had them."""
    only(folder, source, "roberta", ())
    learnt = json.loads((source / "tokenizer.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(learnt["model"]["vocab"]))
    lines = [" ".join(pair) for pair in learnt["model"]["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("prefix", [False, True])
def test_byte_pairs_without_tokenizer_json(tiny_bert, tmp_path: Path, prefix: bool) -> None:
    folder = byte_pairs(tmp_path / "old", tiny_bert(model_type="roberta"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_prefix_space": prefix}))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokens_of(folder, TEXTS) == theirs(list(TEXTS))["input_ids"]
    assert special_token(folder, "mask_token") == "<mask>"


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.json"])
def test_tokens_added_to_byte_pairs(tiny_bert, tmp_path: Path, file: str) -> None:
    source = tiny_bert(model_type="roberta")
    folder = byte_pairs(tmp_path / "m", source)
    if file == "tokenizer.json":
        shutil.copy(source / file, folder)
    size = len(json.loads((folder / "vocab.json").read_text()))
    added = {str(size): {"content": "<ent>", "lstrip": True}, "4": {"content": "<mask>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ["the <ent> ferry<ent>", "a <mask> at noon"]
    assert tokens_of(folder, texts) == theirs(texts)["input_ids"]


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("kind", ["RobertaTokenizerFast", "PreTrainedTokenizerFast"])
def test_prefix_of_byte_pairs_in_tokenizer_json(
    tiny_bert, tmp_path: Path, kind: str, prefix: bool
) -> None:
    folder = only(tmp_path / "m", tiny_bert(model_type="roberta"), "roberta", ("tokenizer.json",))
    settings = {"tokenizer_class": kind, "add_prefix_space": prefix}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokens_of(folder, TEXTS) == theirs(list(TEXTS))["input_ids"]


@pytest.mark.parametrize("named", [{}, {"pad_token": None}, {"pad_token": "<pad>"}], ids=str)
def test_the_token_of_stored_padding(tiny_bert, tmp_path: Path, named: dict[str, Any]) -> None:
    """It is a special token too, unless a file names another, so it may shift later ids."""
    source = tiny_bert(model_type="roberta")
    folder = only(tmp_path / "m", source, "roberta", ("tokenizer.json",))
    stored = Tokenizer.from_file(str(folder / "tokenizer.json"))
    stored.enable_padding(pad_token="<fill>", pad_id=1)
    stored.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "mask_token": "<new>", **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ["a <new> ferry", "noon<fill> at"]
    assert tokens_of(folder, texts) == [theirs(text)["input_ids"] for text in texts]


def test_mpnets_words_without_tokenizer_json(tiny_bert, tmp_path: Path) -> None:
    source = tiny_bert(model_type="mpnet")
    folder = only(tmp_path / "old", source, "mpnet", ())
    vocabulary = json.loads((source / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in vocabulary))
    pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
    assert tokens_of(folder, TEXTS) == tokens_of(source, TEXTS)
    assert tokens_of(folder, pairs) == tokens_of(source, pairs)


def test_damaged_byte_pairs_are_named(tiny_bert, tmp_path: Path) -> None:
    source = tiny_bert(model_type="roberta")
    folder = byte_pairs(tmp_path / "old", source)
    with (folder / "merges.txt").open("a") as merges:
        merges.write("zz zz\n")
    with pytest.raises(
        CheckpointError, match=r"merges\.txt, which must fit vocab\.json, cannot be read"
    ):
        read_tokenizer(folder)
    (folder / "merges.txt").write_text("")
    for words, message in (({"a": 0}, "lacks the token <s>"), ({"a": "b"}, "tokens to their ids")):
        (folder / "vocab.json").write_text(json.dumps(words))
        with pytest.raises(CheckpointError, match=message):
            read_tokenizer(folder)


@pytest.mark.parametrize("family", IN_TRANSFORMERS)
def test_masks_are_filled_as_by_the_pipeline_of_transformers(tiny_bert, family: str) -> None:
    folder = tiny_bert("masked-lm", model_type=family)
    text = f"the harbour is {special_token(folder, 'mask_token')} at noon"
    theirs = transformers.pipeline("fill-mask", model=str(folder), device="cpu")(text, top_k=60)
    ours = load(folder).fill(text, top_k=60)
    assert [each["token"] for each in ours] == [each["token_str"] for each in theirs]
    assert [each["score"] for each in ours] == pytest.approx(
        [each["score"] for each in theirs], abs=1e-5
    )


def test_granite_multilingual(tiny_bert, tmp_path: Path) -> None:
    """As granite-embedding multilingual r2: Gemma's tokenizer, SiLU, modules without folders."""
    theirs = pytest.importorskip("sentence_transformers")
    base = tiny_bert(model_type="modernbert", hidden_activation="silu", classifier_pooling="cls")
    folder = with_modules(base, tmp_path / "granite", mode="cls", normalize=True)
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({**pooling, "include_prompt": False})
    )
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[*names, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    backend.train_from_iterator([text.replace(" ", "\u2581") for text in SENTENCES], trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<bos>:0 $A:0",
        pair="<bos>:0 $A:0 <bos>:1 $B:1",
        special_tokens=[("<bos>", names.index("<bos>"))],
    )
    backend.save(str(folder / "tokenizer.json"))
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        "model_max_length": 64,
        "tokenizer_class": "GemmaTokenizer",
        "use_default_system_prompt": False,
        **{f"{name.strip('<>')}_token": name for name in names},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    texts = ["a \u2603 snowman", "  two  spaces ", *SENTENCES[:6]]
    expected = theirs.SentenceTransformer(str(folder), device="cpu").encode(texts)
    assert np.abs(load(folder).embed(texts) - expected).max() < 2e-5
    prune(folder, tmp_path / "sparse")
    pack(tmp_path / "sparse", tmp_path / "packed", dtype="fp32")
    again = theirs.SentenceTransformer(str(tmp_path / "sparse"), device="cpu").encode(texts)
    assert np.abs(load(tmp_path / "packed").embed(texts) - again).max() < 2e-5
