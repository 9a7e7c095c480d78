"""The tokenizer.json that each step writes: complete by itself, and read alike by transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_folders import write_bert
from family_configs import IN_TRANSFORMERS
from model_folders import word_pieces
from sparsebert.checkpoint import tokenizer as module
from sparsebert.checkpoint.convert import convert
from sparsebert.checkpoint.tokenizer import StoredTokenizer, read_tokenizer, write_tokenizer
from sparsebert.errors import CheckpointError
from sparsebert.inference import load
from sparsebert.inference.texts import as_texts
from sparsebert.packing import pack, unpack
from sparsebert.pruning import prune
from tiny_models import TinyBert
from tricky_texts import TRICKY

PAIR = ("THE FERRY leaves", "when the bridge (old) is closed")


def edit(file: Path, **changes: Any) -> None:
    """Change keys of a JSON file; ``...`` takes one out."""
    content = {**json.loads(file.read_text()), **changes} if file.is_file() else changes
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))


def without_building(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_given: Any) -> None:
        raise AssertionError("the tokenizer was built from the folder's files")

    monkeypatch.setattr(module, "build_tokenizer", refuse)


def ids_of(tokenizer: StoredTokenizer | None) -> list[list[int]]:
    assert tokenizer is not None
    found = [tokenizer.backend.encode(text) for text in TRICKY]
    pair = tokenizer.backend.encode(*PAIR)
    return [each.ids for each in (*found, pair)] + [pair.type_ids]


def transformers_ids(folder: Path) -> list[Any]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    tokenizer.model_max_length = int(1e30)
    pair = tokenizer(*PAIR)
    known = [tokenizer.truncation_side, tokenizer.padding_side, tokenizer.pad_token]
    return [
        *(tokenizer(text)["input_ids"] for text in TRICKY),
        pair["input_ids"],
        pair.get("token_type_ids"),
        *known,
        sorted(tokenizer.get_vocab().items()),
    ]


def vocabulary_only(folder: Path) -> None:
    """As folders were before tokenizer.json."""
    stored = json.loads((folder / "tokenizer.json").read_text())
    words = sorted(stored["model"]["vocab"], key=stored["model"]["vocab"].__getitem__)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    (folder / "tokenizer.json").unlink()
    edit(folder / "tokenizer_config.json", backend=...)


def left_overs(folder: Path) -> None:
    """Truncation and padding that whoever saved the tokenizer had on."""
    truncation = {"direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 2}
    padding = {
        "strategy": {"Fixed": 9},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    edit(folder / "tokenizer.json", truncation=truncation, padding=padding)
    edit(folder / "tokenizer_config.json", truncation_side=..., padding_side=...)


def other_switches(folder: Path) -> None:
    changes = {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False}
    edit(folder / "tokenizer_config.json", **changes, mask_token="[UNK]")


def added_tokens(folder: Path) -> None:
    size = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    edit(
        folder / "tokenizer_config.json",
        extra_special_tokens=["<ferry>", "bridge"],
        added_tokens_decoder={str(size): {"content": "noon", "lstrip": True, "normalized": True}},
    )


def as_stored(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")


FOLDERS = [vocabulary_only, left_overs, other_switches, added_tokens, as_stored]


@pytest.fixture(scope="module")
def shapes(tiny_bert: TinyBert, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of every family, and BERT's as other tools left them."""
    made = {name: tiny_bert("encoder", model_type=name) for name in IN_TRANSFORMERS}
    for change in FOLDERS:
        folder = tmp_path_factory.mktemp(change.__name__) / "model"
        shutil.copytree(made["bert"], folder)
        change(folder)
        made[change.__name__] = folder
    return made


@pytest.mark.parametrize("name", [*IN_TRANSFORMERS, *(change.__name__ for change in FOLDERS)])
class TestWritten:
    def test_pruned_and_packed_folders_need_their_tokenizer_json_alone(
        self,
        shapes: dict[str, Path],
        name: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        source = shapes[name]
        wanted, dressed = ids_of(read_tokenizer(source)), load(source).tokenizer
        prune(source, tmp_path / "sparse")
        pack(tmp_path / "sparse", tmp_path / "packed")
        unpack(tmp_path / "packed", tmp_path / "unpacked")
        without_building(monkeypatch)
        for step in ("sparse", "packed", "unpacked"):
            assert ids_of(read_tokenizer(tmp_path / step)) == wanted
        opened = load(tmp_path / "packed").tokenizer
        assert opened.max_length == dressed.max_length
        assert opened.truncation_side == dressed.truncation_side
        assert opened.mask_token == dressed.mask_token
        for text in (TRICKY, [PAIR]):
            found, before = (each.encode_truncated(as_texts(text))[0] for each in (opened, dressed))
            assert [(a.ids.tolist(), a.type_ids.tolist()) for a in found] == [
                (a.ids.tolist(), a.type_ids.tolist()) for a in before
            ]

    def test_transformers_reads_it_as_it_read_the_source(
        self, shapes: dict[str, Path], name: str, tmp_path: Path
    ) -> None:
        prune(shapes[name], tmp_path / "sparse")
        assert transformers_ids(tmp_path / "sparse") == transformers_ids(shapes[name])


class TestOtherSteps:
    def test_fine_tuning(self, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        wanted = transformers_ids(teacher)[: len(TRICKY) + 2]
        without_building(monkeypatch)
        assert ids_of(read_tokenizer(teacher)) == wanted

    def test_convert(
        self, tiny_bert: TinyBert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wanted = ids_of(read_tokenizer(tiny_bert("encoder")))
        convert(tiny_bert("encoder"), tmp_path / "new")
        without_building(monkeypatch)
        assert ids_of(read_tokenizer(tmp_path / "new")) == wanted

    @pytest.mark.parametrize(
        "settings",
        [
            {"do_lower_case": True, "max_seq_length": 20},
            {"processor_kwargs": {"do_lower_case": False, "truncation_side": "left"}},
        ],
    )
    def test_what_sentence_transformers_sets_counts(
        self,
        tiny_bert: TinyBert,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        settings: dict[str, Any],
    ) -> None:
        source = tmp_path / "model"
        shutil.copytree(tiny_bert("encoder", lower_case=False), source)
        kind = "sentence_transformers.models.Transformer"
        (source / "modules.json").write_text(json.dumps([{"path": "", "type": kind}]))
        (source / "sentence_bert_config.json").write_text(json.dumps(settings))
        before = load(source).tokenizer
        prune(source, tmp_path / "sparse")
        without_building(monkeypatch)
        after = load(tmp_path / "sparse").tokenizer
        assert (after.max_length, after.truncation_side) == (
            before.max_length,
            before.truncation_side,
        )
        texts = as_texts(TRICKY)
        assert [each.ids.tolist() for each in after.encode_truncated(texts)[0]] == [
            each.ids.tolist() for each in before.encode_truncated(texts)[0]
        ]


class TestChangedSince:
    @pytest.fixture
    def packed(self, tiny_bert: TinyBert, tmp_path: Path) -> Path:
        pack(tiny_bert("encoder"), tmp_path / "packed")
        return tmp_path / "packed"

    def test_a_changed_setting_counts(self, packed: Path) -> None:
        edit(packed / "tokenizer_config.json", do_lower_case=False)
        stored = read_tokenizer(packed)
        assert stored is not None
        assert "[UNK]" in stored.backend.encode("FERRY").tokens

    def test_a_tokenizer_saved_by_another_tool_counts(self, packed: Path) -> None:
        edit(packed / "tokenizer.json", added_tokens=[])
        assert ids_of(read_tokenizer(packed)) == transformers_ids(packed)[: len(TRICKY) + 2]

    @pytest.mark.parametrize(
        "changes",
        [
            {"sha256": "0" * 64},
            {"max_length": "long"},
            {"max_length": True},
            {"special_tokens": {"mask_token": 3}},
            {"special_tokens": {}},
            {"truncation_side": "middle"},
            {"token_types": None},
            {"split_special_tokens": ...},
        ],
    )
    def test_a_record_that_is_not_ours_counts_for_nothing(
        self, packed: Path, changes: dict[str, Any]
    ) -> None:
        before = ids_of(read_tokenizer(packed))
        raw = json.loads((packed / "config.json").read_text())
        record = {**raw["sparsity"]["tokenizer"], **changes}
        raw["sparsity"]["tokenizer"] = {k: v for k, v in record.items() if v is not ...}
        (packed / "config.json").write_text(json.dumps(raw))
        assert module._recorded(packed, {}) is None
        assert ids_of(read_tokenizer(packed)) == before

    def test_a_folder_packed_before_there_was_a_record(self, packed: Path) -> None:
        before = ids_of(read_tokenizer(packed))
        raw = json.loads((packed / "config.json").read_text())
        del raw["sparsity"]["tokenizer"]
        (packed / "config.json").write_text(json.dumps(raw))
        (packed / "checksums.json").unlink()
        assert ids_of(read_tokenizer(packed)) == before
        with pytest.warns(match="without checksums"):
            assert load(packed).tokenizer.max_length == 64


class TestLeftAlone:
    def test_scores_that_the_file_would_not_keep(self, tiny_bert: TinyBert, tmp_path: Path) -> None:
        """The tokenizers library reads some numbers of its own JSON with another last bit."""
        source = tmp_path / "model"
        shutil.copytree(tiny_bert("encoder", model_type="xlm-roberta"), source)
        stored = json.loads((source / "tokenizer.json").read_text())
        random = np.random.default_rng(0)
        for piece in stored["model"]["vocab"]:
            piece[1] = float(np.float32(-15 * random.random()))
        (source / "tokenizer.json").write_text(json.dumps(stored))
        prune(source, tmp_path / "sparse")
        written = (tmp_path / "sparse" / "tokenizer.json").read_bytes()
        assert written == (source / "tokenizer.json").read_bytes()
        assert module._recorded(tmp_path / "sparse", {}) is None
        found = ids_of(read_tokenizer(tmp_path / "sparse"))
        assert found[:-1] == transformers_ids(tmp_path / "sparse")[: len(TRICKY) + 1]

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda folder: edit(folder / "tokenizer_config.json", tokenizer_class="OddTokenizer"),
            lambda folder: (folder / "vocab.txt").unlink(),
        ],
    )
    def test_what_cannot_be_built(self, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
        folder = write_bert(tmp_path / "model")
        spoil(folder)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        write_tokenizer(folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    @pytest.mark.parametrize("kind", ["BertTokenizer", "PreTrainedTokenizerFast"])
    @pytest.mark.parametrize("index", [10**7, 2**32 - 1])
    def test_ids_that_the_library_counts_up_to(self, tmp_path: Path, kind: str, index: int) -> None:
        """It writes no token at all where the largest id is the largest of 32 bits."""
        folder = write_bert(tmp_path / "model")
        stored = json.loads(word_pieces().to_str())
        stored["model"]["vocab"]["zz"] = index
        edit(folder / "tokenizer.json", **stored)
        edit(folder / "tokenizer_config.json", tokenizer_class=kind)
        before = (folder / "tokenizer.json").read_bytes()
        write_tokenizer(folder)
        assert (folder / "tokenizer.json").read_bytes() == before
        with pytest.raises(CheckpointError, match=f"gives a token the id {index}"):
            read_tokenizer(folder)
