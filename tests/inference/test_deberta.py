"""DeBERTa as it was published: real keys and names, padded batches, real buckets of distances."""

from __future__ import annotations

import json
import shutil
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentences import SENTENCES
from sparsebert import convert, load, pack, prune, unpack
from sparsebert.checkpoint.sentencepiece_model import read_sentencepieces
from sparsebert.errors import CheckpointError
from sparsebert.inference.texts import as_texts
from tricky_texts import TRICKY, tokenizer_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 2e-5
LENGTHS = (5, 512, 300, 129)
# As in microsoft/deberta-v3-base, -small and -xsmall, but for the sizes.
PUBLISHED = {
    "model_type": "deberta-v2",
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 56,  # heads of 14
    "initializer_range": 0.02,
    "intermediate_size": 36,
    "max_position_embeddings": 512,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "layer_norm_eps": 1e-7,
    "max_relative_positions": -1,
    "position_biased_input": False,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "type_vocab_size": 0,
}
# What cross-encoder/nli-deberta-v3-base has besides.
NLI = {
    "architectures": ["DebertaV2ForSequenceClassification"],
    "id2label": {"0": "contradiction", "1": "entailment", "2": "neutral"},
    "label2id": {"contradiction": 0, "entailment": 1, "neutral": 2},
    "legacy": True,
    "pad_token_id": 0,
    "pooler_dropout": 0,
    "pooler_hidden_act": "gelu",
    "pooler_hidden_size": 56,
    "torch_dtype": "float32",
    "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"},
}


def published(folder: Path, tiny_bert: Any, head: str, own: dict[str, Any]) -> Path:
    """A folder with the published config.json, and names as its files have them."""
    sizes = {key: value for key, value in PUBLISHED.items() if key != "model_type"}
    shutil.copytree(tiny_bert(head, model_type="deberta-v2", **sizes), folder)
    saved = json.loads((folder / "config.json").read_text())
    config = {**PUBLISHED, "vocab_size": saved["vocab_size"], **own}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def base(tiny_bert: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoder as Microsoft's: a pickle with the parts of pre-training, no architectures."""
    folder = published(tmp_path_factory.mktemp("base") / "model", tiny_bert, "encoder", {})
    model = transformers.AutoModel.from_pretrained(folder)
    tensors = {f"deberta.{name}": value for name, value in model.state_dict().items()}
    for part in ("lm_predictions.lm_head", "mask_predictions"):
        tensors |= {
            f"{part}.dense.weight": torch.zeros(56, 56),
            f"{part}.dense.bias": torch.zeros(56),
            f"{part}.LayerNorm.weight": torch.ones(56),
            f"{part}.LayerNorm.bias": torch.zeros(56),
        }
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


@pytest.fixture(scope="module")
def nli(tiny_bert: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nli") / "model"
    return published(folder, tiny_bert, "sequence-classification", NLI)


@pytest.fixture(scope="module")
def converted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(convert(base, tmp_path_factory.mktemp("converted") / "model").out)


@pytest.fixture(scope="module")
def theirs(base: Path) -> list[np.ndarray]:
    """The hidden states that transformers gives `rows`, padded to the longest."""
    model = transformers.AutoModel.from_pretrained(base, dtype=torch.float32).eval()
    with torch.inference_mode():
        states = model(**padded(rows(base))).last_hidden_state.numpy()
    return [state[:length] for state, length in zip(states, LENGTHS, strict=True)]


def rows(folder: Path) -> list[list[int]]:
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    random = np.random.default_rng(0)
    return [random.integers(1, vocabulary, length).tolist() for length in LENGTHS]


def padded(ids: list[list[int]]) -> dict[str, Any]:
    batch = np.zeros((len(ids), max(map(len, ids))), np.int64)
    mask = np.zeros_like(batch)
    for place, row in enumerate(ids):
        batch[place, : len(row)], mask[place, : len(row)] = row, 1
    return {"input_ids": torch.from_numpy(batch), "attention_mask": torch.from_numpy(mask)}


def test_the_encoder_on_a_padded_batch(converted: Path, theirs: Any, isa: str) -> None:
    ours = load(converted, threads=2).forward(rows(converted))
    for found, wanted in zip(ours, theirs, strict=True):
        assert np.abs(found - wanted).max() < TOLERANCE


def test_natural_language_inference(nli: Path, tmp_path: Path) -> None:
    prune(nli, tmp_path / "sparse")
    for dtype in ("fp32", "int8"):
        pack(tmp_path / "sparse", tmp_path / dtype, dtype=dtype)
    unpack(tmp_path / "fp32", tmp_path / "unpacked")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "unpacked")
    ids = rows(nli)
    with torch.inference_mode():
        theirs = model.eval()(**padded(ids)).logits.numpy()
    assert np.abs(np.stack(load(tmp_path / "fp32").forward(ids)) - theirs).max() < TOLERANCE
    rounded = np.stack(load(tmp_path / "int8").forward(ids))
    cosines = (rounded * theirs).sum(1) / np.linalg.norm(rounded, axis=1)
    assert (cosines / np.linalg.norm(theirs, axis=1)).min() > 0.999


def test_int8_points_the_same_way(converted: Path, theirs: Any, tmp_path: Path) -> None:
    pack(converted, tmp_path / "int8", dtype="int8")
    rounded = load(tmp_path / "int8").forward(rows(converted))
    for one, other in zip(theirs, rounded, strict=True):
        cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        assert cosines.mean() > 0.999


class TestSentencePieceFile:
    """spm.model alone, as microsoft/deberta-v3-base has it."""

    PIECES = (
        ("[PAD]", 0.0, 3),
        ("[CLS]", 0.0, 3),
        ("[SEP]", 0.0, 3),
        ("[UNK]", 0.0, 2),
        ("<mark>", 0.0, 4),
        ("\u2581", -2.0, 1),
        *((each, -8.0, 1) for each in sorted(set("".join(SENTENCES)) - {" "})),
        *((f"\u2581{word}", -5.5, 1) for word in sorted(set(" ".join(SENTENCES).split()))[::2]),
    )

    @staticmethod
    def field(number: int, kind: int, value: bytes) -> bytes:
        size = bytes([len(value)]) if kind == 2 else b""
        assert len(value) < 128
        key = number << 3 | kind
        return (bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])) + size + value

    def file(self, folder: Path, pieces: Any = PIECES, model_type: int = 1) -> Path:
        """A folder with this vocabulary, written field by field."""
        folder.mkdir()
        data = b""
        for text, score, kind in pieces:
            piece = self.field(1, 2, text.encode()) + self.field(2, 5, struct.pack("<f", score))
            data += self.field(1, 2, piece + self.field(3, 0, bytes([kind])))
        trainer = self.field(3, 0, bytes([model_type])) + self.field(40, 0, bytes([3]))
        (folder / "spm.model").write_bytes(data + self.field(2, 2, trainer))
        (folder / "config.json").write_text(json.dumps({"model_type": "deberta-v2"}))
        settings = {"do_lower_case": False, "vocab_type": "spm"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return folder

    def test_pieces(self, tmp_path: Path) -> None:
        found = read_sentencepieces(self.file(tmp_path / "model") / "spm.model")
        assert found.pieces == tuple((text, score) for text, score, _ in self.PIECES)
        assert found.kinds == tuple(kind for *_, kind in self.PIECES)
        assert found.unknown == 3

    def test_ids_by_hand(self, tmp_path: Path) -> None:
        folder = self.file(tmp_path / "model")
        names = [text for text, *_ in self.PIECES]
        word = next(name for name in names if len(name) > 3 and name[0] == "\u2581")
        text = f"{word[1:]}\n<mark>\u4e2d  \t[SEP]"
        (found,) = tokenizer_of(folder, 100).encode(as_texts([text]))
        wanted = ["[CLS]", word, "<mark>", "\u2581", "[UNK]", "[SEP]", "[SEP]"]
        assert [names[index] for index in found.ids] == wanted

    def test_ids_are_those_of_transformers(self, tmp_path: Path) -> None:
        pytest.importorskip("sentencepiece")  # transformers reads the file with it
        folder = self.file(tmp_path / "model")
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        texts = [*SENTENCES, *TRICKY, "the <mark> of [MASK] a"]
        found = [row.ids.tolist() for row in tokenizer_of(folder, 2000).encode(as_texts(texts))]
        assert found == theirs(texts)["input_ids"]
        (pair,) = tokenizer_of(folder, 2000, type_vocab_size=2).encode(as_texts([SENTENCES[:2]]))
        wanted = theirs(SENTENCES[0], SENTENCES[1])
        assert pair.ids.tolist() == wanted["input_ids"]
        assert pair.type_ids.tolist() == wanted["token_type_ids"]

    def test_another_kind_of_pieces_is_refused(self, tmp_path: Path) -> None:
        folder = self.file(tmp_path / "model", model_type=2)
        with pytest.raises(CheckpointError, match="not a SentencePiece unigram model"):
            read_sentencepieces(folder / "spm.model")

    def test_any_damage_is_an_error_of_ours(self, tmp_path: Path) -> None:
        file = self.file(tmp_path / "model", self.PIECES[:8]) / "spm.model"
        whole = file.read_bytes()
        random = np.random.default_rng(0)
        for place in range(0, len(whole), 3):
            damaged = bytearray(whole[: place + 1])
            damaged[random.integers(len(damaged))] ^= 1 << random.integers(8)
            file.write_bytes(damaged)
            with suppress(CheckpointError):
                read_sentencepieces(file)
