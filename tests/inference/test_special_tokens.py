"""Tokens that a folder names beside its vocabulary are those that transformers adds."""

from __future__ import annotations

import json
import shutil

import pytest

from sparsebert.checkpoint.tokenizer import read_tokenizer
from sparsebert.errors import CheckpointError
from sparsebert.inference.texts import as_texts
from tiny_models import vocabulary, write_vocabulary_folder
from tricky_texts import tokenizer_of


def written(content: str, **flags: bool) -> dict[str, object]:
    """A token as tokenizer_config.json has it."""
    usual = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized", "special"), False)
    return {"content": content, **usual, **flags}


ENTITIES = "The [ENT] ferry, x[ENT]y [ent] <two>  [TWO] leaves [MASK] [NEW] at [SEP] noon"
CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
SIZE = len(vocabulary())
SOURCES = {
    "added_tokens.json": {ADDED: {"[TWO]": SIZE + 1, "[ENT]": SIZE}},
    "special in the config": {
        ADDED: {"[ENT]": SIZE},
        CONFIG: {"additional_special_tokens": ["[ENT]"]},
    },
    "special in the map": {ADDED: {"[ENT]": SIZE}, MAP: {"additional_special_tokens": ["[ENT]"]}},
    "added_tokens_decoder": {
        CONFIG: {
            "added_tokens_decoder": {
                str(SIZE + 1): written("<two>", lstrip=True, rstrip=True),
                str(SIZE): written("[ENT]", special=True),
                "4": written("[MASK]", lstrip=True),
            }
        }
    },
    "normalised whole words": {
        CONFIG: {
            "added_tokens_decoder": {str(SIZE): written("[ENT]", normalized=True, single_word=True)}
        }
    },
    "older files count no more": {
        CONFIG: {"added_tokens_decoder": {str(SIZE): written("[ENT]"), "4": written("[MASK]")}},
        MAP: {"additional_special_tokens": ["[TWO]"], "mask_token": "[TWO]"},
        ADDED: {"[NEW]": SIZE + 1},
    },
    "config": {CONFIG: {"additional_special_tokens": ["[ENT]", "[TWO]"]}},
    "map": {MAP: {"additional_special_tokens": ["[ENT]", "[TWO]"]}},
    "config before map": {
        CONFIG: {"additional_special_tokens": ["[ENT]"]},
        MAP: {"additional_special_tokens": ["[TWO]"]},
    },
    "none before map": {
        CONFIG: {"additional_special_tokens": []},
        MAP: {"additional_special_tokens": ["[TWO]"]},
    },
    "today's name": {CONFIG: {"extra_special_tokens": ["[ENT]"]}},
    "today's name in both": {
        CONFIG: {"extra_special_tokens": ["[ENT]"]},
        MAP: {"extra_special_tokens": ["[TWO]"]},
    },
    "named by the model": {CONFIG: {"ent_token": "[ENT]"}},
    "by role": {CONFIG: {"extra_special_tokens": {"ent_token": "[ENT]"}}},
    "map before config": {CONFIG: {"mask_token": "[NEW]"}, MAP: {"mask_token": "[TWO]"}},
    "with a beginning": {CONFIG: {"bos_token": "[NEW]", "extra_special_tokens": ["[ENT]"]}},
    "in the vocabulary": {CONFIG: {"extra_special_tokens": ["ferry"]}},
}


class TestAddedTokens:
    """Those that a folder names beside its vocabulary get transformers' ids and flags."""

    @pytest.fixture
    def folder(self, tmp_path, tiny_bert):
        def make(files: dict[str, object], source: str = "vocab.txt", kind: str | None = None):
            folder = write_vocabulary_folder(tmp_path / "m", vocabulary())
            if source == "tokenizer.json":
                (folder / "vocab.txt").unlink()
                shutil.copy(tiny_bert() / source, folder)
            (folder / "config.json").write_text('{"model_type": "bert"}')
            for name, content in files.items():
                (folder / name).write_text(json.dumps(content))
            if kind:
                config = json.loads((folder / CONFIG).read_text())
                (folder / CONFIG).write_text(json.dumps({**config, "tokenizer_class": kind}))
            return folder

        return make

    @pytest.mark.parametrize(
        ("source", "kind"),
        [
            ("vocab.txt", None),
            ("tokenizer.json", None),
            ("tokenizer.json", "PreTrainedTokenizerFast"),
        ],
    )
    @pytest.mark.parametrize("files", SOURCES.values(), ids=list(SOURCES))
    def test_every_source(self, folder, files, source, kind):
        transformers = pytest.importorskip("transformers")
        made = folder(files, source, kind)
        theirs = transformers.AutoTokenizer.from_pretrained(made)
        ours = read_tokenizer(made).backend
        assert ours.encode(ENTITIES).ids == theirs(ENTITIES)["input_ids"]
        table = {index: repr(token) for index, token in theirs.added_tokens_decoder.items()}
        assert {i: repr(token) for i, token in ours.get_added_tokens_decoder().items()} == table

    def test_on_a_real_vocabulary(self, minilm, tmp_path):
        transformers = pytest.importorskip("transformers")
        shutil.copy(minilm / "vocab.txt", tmp_path)
        shutil.copy(minilm / "config.json", tmp_path)
        (tmp_path / ADDED).write_text('{"[ENT]": 30522}')
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert theirs.convert_tokens_to_ids("[ENT]") == 30522
        ours = tokenizer_of(tmp_path).encode(as_texts([ENTITIES]))[0].ids
        assert ours.tolist() == theirs(ENTITIES)["input_ids"]

    def test_tokens_written_out_in_old_maps(self, folder):
        made = folder({MAP: {"additional_special_tokens": [written("[ENT]", lstrip=True)]}})
        assert read_tokenizer(made).backend.token_to_id("[ENT]") == SIZE

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ({ADDED: {"[ENT]": SIZE + 5}}, r"'\[ENT\]' is recorded with id 2\d\d but would get"),
            ({ADDED: {"ferry": SIZE}}, "'ferry' is recorded with id"),
            ({ADDED: {"[ENT]": "x"}}, r"added_tokens\.json must map tokens to their ids"),
            ({ADDED: ["[ENT]"]}, r"added_tokens\.json must hold a JSON object"),
            ({CONFIG: {"added_tokens_decoder": None}}, "must map ids to tokens"),
            ({CONFIG: {"added_tokens_decoder": ["[ENT]"]}}, "must map ids to tokens"),
            ({CONFIG: {"added_tokens_decoder": {"x": written("[ENT]")}}}, "must map ids to tokens"),
            ({CONFIG: {"added_tokens_decoder": {"9" * 5000: {}}}}, "must map ids to tokens"),
            (
                {CONFIG: {"added_tokens_decoder": {"9": {"content": 7}}}},
                "something that is not a token",
            ),
            (
                {CONFIG: {"added_tokens_decoder": {str(SIZE): {**written("[ENT]"), "lstrip": 1}}}},
                "'added_tokens_decoder' contains something that is not a token",
            ),
            ({CONFIG: {"additional_special_tokens": "[ENT]"}}, "must list tokens"),
            (
                {CONFIG: {"additional_special_tokens": [7]}},
                "contains something that is not a token",
            ),
            ({CONFIG: {"additional_special_tokens": ["\ud800"]}}, "half of a surrogate pair"),
            ({MAP: {"mask_token": 7}}, "'mask_token' contains something that is not a token"),
        ],
        ids=str,
    )
    def test_refusals(self, folder, files, message):
        with pytest.raises(CheckpointError, match=message):
            read_tokenizer(folder(files))
