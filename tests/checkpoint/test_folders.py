"""Folders are written as a whole or not at all, with everything beside the weights that belongs."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from bert_folders import write_bert
from sparsebert.checkpoint import (
    copy_auxiliary_files,
    open_checkpoint,
    read_pooling,
    source_name,
    staged_folder,
    staging,
    with_step,
)
from sparsebert.checkpoint.staging import check_output
from sparsebert.errors import OutputError
from sparsebert.patterns import ONE_OF_TWO


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class TestStaging:
    def test_the_folder_appears_when_the_block_ends(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        with staged_folder(out, force=False) as staging:
            (staging / "config.json").write_text("{}")
            assert not out.exists()
            assert staging.parent == tmp_path
        assert names(tmp_path) == {"out"}
        assert names(out) == {"config.json"}

    def test_missing_parents_are_made(self, tmp_path: Path) -> None:
        with staged_folder(tmp_path / "a" / "b" / "out", force=False) as staging:
            (staging / "x").touch()
        assert names(tmp_path / "a" / "b") == {"out"}

    def test_an_output_inside_the_model_that_cannot_be_written_is_no_damaged_model(
        self, tmp_path: Path
    ) -> None:
        model = write_bert(tmp_path / "model")
        with (
            pytest.raises(OutputError, match="out could not be written: Permission denied"),
            staged_folder(model / "out", force=False, source=model) as staging,
        ):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(staging / "x"))

    def test_an_existing_folder_is_kept_without_force(self, tmp_path: Path) -> None:
        out = write_bert(tmp_path / "out")
        with (
            pytest.raises(OutputError, match="exists: remove it, name another folder, or pass"),
            staged_folder(out, force=False),
        ):
            raise AssertionError("must not be reached")
        open_checkpoint(out)

    def test_force_replaces_a_model_folder_whole(self, tmp_path: Path) -> None:
        out = write_bert(tmp_path / "out")
        with staged_folder(out, force=True) as staging:
            (staging / "new").touch()
            assert "config.json" in names(out)
        assert names(out) == {"new"}
        assert names(tmp_path) == {"out"}

    def test_force_replaces_an_empty_folder(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        with staged_folder(tmp_path / "out", force=True) as staging:
            (staging / "new").touch()
        assert names(tmp_path / "out") == {"new"}

    def test_force_does_not_cost_anybody_a_folder_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter.tex").touch()
        with pytest.raises(OutputError, match="not a model folder"):
            check_output(tmp_path / "thesis", force=True)

    def test_force_does_not_replace_files_or_the_current_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match="not a folder"):
            check_output(tmp_path / "file", force=True)
        here = write_bert(tmp_path / "here")
        (here / "inner").mkdir()
        monkeypatch.chdir(here / "inner")
        with pytest.raises(OutputError, match="current directory"):
            check_output(here, force=True)

    def test_a_link_to_a_folder_stays_a_link(self, tmp_path: Path) -> None:
        real = write_bert(tmp_path / "real")
        (tmp_path / "link").symlink_to(real)
        with staged_folder(tmp_path / "link", force=True) as staging:
            (staging / "new").touch()
        assert (tmp_path / "link").is_symlink()
        assert names(real) == {"new"}

    @pytest.mark.parametrize("force", [True, False])
    def test_the_source_is_never_the_target(self, tmp_path: Path, force: bool) -> None:
        model = write_bert(tmp_path / "family" / "model")
        (tmp_path / "link").symlink_to(model)
        for out in (model, tmp_path / "link", model / ".." / "model"):
            with pytest.raises(OutputError, match="is the model itself"):
                check_output(out, force=force, source=model)
        with pytest.raises(OutputError, match="contains the model"):
            check_output(tmp_path / "family", force=force, source=model)

    @pytest.mark.parametrize(
        ("failure", "expected"),
        [
            (OSError(errno.ENOSPC, "No space left on device"), OutputError),
            (OSError(errno.EDQUOT, "Disk quota exceeded"), OutputError),
            (KeyboardInterrupt(), KeyboardInterrupt),
            (SystemExit(), SystemExit),
            (ValueError("a fault"), ValueError),
        ],
        ids=["full", "quota", "interrupt", "exit", "fault"],
    )
    @pytest.mark.parametrize("existing", [True, False])
    def test_a_failure_leaves_what_was_there_and_nothing_else(
        self,
        tmp_path: Path,
        failure: BaseException,
        expected: type[BaseException],
        existing: bool,
    ) -> None:
        out = tmp_path / "deep" / "out"
        if existing:
            write_bert(out)
        before = {path.name: path.read_bytes() for path in out.iterdir()} if existing else {}
        with pytest.raises(expected), staged_folder(out, force=True) as staging:
            (staging / "half").touch()
            raise failure
        if existing:
            assert {path.name: path.read_bytes() for path in out.iterdir()} == before
            assert names(tmp_path / "deep") == {"out"}
        else:
            assert names(tmp_path) == set()

    def test_a_folder_that_came_meanwhile_is_kept(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        with (
            pytest.raises(OutputError, match="was created in the meantime"),
            staged_folder(out, force=False) as staging,
        ):
            (staging / "ours").touch()
            out.mkdir()
            (out / "theirs").touch()
        assert names(tmp_path) == {"out"}
        assert names(out) == {"theirs"}

    def test_a_full_disk_says_so(self, tmp_path: Path) -> None:
        with (
            pytest.raises(OutputError, match=r"out could not be written: No space left.*untouched"),
            staged_folder(tmp_path / "out", force=False),
        ):
            raise OSError(errno.ENOSPC, "No space left on device")

    def test_errors_that_are_not_of_writing_pass(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError), staged_folder(tmp_path / "o" / "out", force=False):
            (tmp_path.parent / "elsewhere" / "data.json").read_text()

    def test_a_failed_swap_puts_the_old_folder_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = write_bert(tmp_path / "out")
        rename, calls = os.rename, []

        def failing(source: Path, target: Path) -> None:
            calls.append(target)
            if len(calls) == 2:
                raise OSError(errno.EIO, "Input/output error", str(source))
            rename(source, target)

        monkeypatch.setattr(os, "rename", failing)
        monkeypatch.setattr(staging, "exchange", lambda one, other: False)  # as on NFS
        with pytest.raises(OutputError), staged_folder(out, force=True) as folder:
            (folder / "new").touch()
        assert names(tmp_path) == {"out"}
        open_checkpoint(out)

    def test_a_parent_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(OutputError), staged_folder(tmp_path / "file" / "out", force=False):
            raise AssertionError("must not be reached")


class TestCompanions:
    def test_what_belongs_is_copied_and_weights_are_not(self, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.mkdir()
        target.mkdir()
        belongs = ["tokenizer.json", "vocab.txt", "tokenizer_config.json", "LICENSE", "NOTICE.md"]
        belongs += ["special_tokens_map.json", "sentencepiece.model", "label_names.json"]
        others = ["config.json", "README.md", "model.safetensors", "pytorch_model.bin", ".hidden"]
        others += ["model.safetensors.index.json", "pytorch_model.bin.index.json", "optimizer.pt"]
        others += ["masks.safetensors", "model.onnx", "script.py"]
        for name in belongs + others:
            (source / name).write_text(name)
        (source / "checkpoint-100").mkdir()
        (source / "checkpoint-100" / "vocab.txt").touch()
        copy_auxiliary_files(source, target)
        assert names(target) == set(belongs)
        assert (target / "vocab.txt").read_text() == "vocab.txt"

    def test_links_of_the_hubs_cache_are_followed(self, tmp_path: Path) -> None:
        source, target = tmp_path / "snapshots" / "0123", tmp_path / "target"
        source.mkdir(parents=True)
        target.mkdir()
        (tmp_path / "blobs").mkdir()
        (tmp_path / "blobs" / "blob").write_text("words")
        (source / "vocab.txt").symlink_to(tmp_path / "blobs" / "blob")
        copy_auxiliary_files(source, target)
        assert not (target / "vocab.txt").is_symlink()
        assert (target / "vocab.txt").read_text() == "words"

    def test_a_file_of_any_size_is_copied(self, tmp_path: Path) -> None:
        """A model without its vocabulary reads no text."""
        source, target = write_bert(tmp_path / "source"), tmp_path / "target"
        target.mkdir()
        with (source / "vocab.txt").open("ab") as file:
            file.truncate((64 << 20) + 1)
        copy_auxiliary_files(source, target)
        assert (target / "vocab.txt").stat().st_size == (64 << 20) + 1

    def test_pooling_modules_come_along(self, minilm: Path, tmp_path: Path) -> None:
        copy_auxiliary_files(minilm, tmp_path)
        assert read_pooling(tmp_path) == read_pooling(minilm)
        assert (tmp_path / "1_Pooling" / "config.json").is_file()

    def test_a_transformer_in_a_sub_folder_comes_to_the_top(self, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        target.mkdir()
        inner = write_bert(source / "0_Transformer")
        (inner / "sentence_bert_config.json").write_text('{"max_seq_length": 9}')
        modules = [
            {"idx": 0, "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ]
        (source / "modules.json").write_text(json.dumps(modules))
        (source / "1_Pooling").mkdir()
        (source / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
        copy_auxiliary_files(source, target)
        assert names(target) == {
            "modules.json",
            "1_Pooling",
            "vocab.txt",
            "sentence_bert_config.json",
        }
        assert json.loads((target / "modules.json").read_text())[0]["path"] == ""
        assert read_pooling(target) == read_pooling(source)


class TestLineage:
    def test_each_step_is_added_and_the_rest_kept(self) -> None:
        raw = {"model_type": "bert"}
        first = with_step(
            raw,
            "prune",
            "org/model",
            {"pattern": "1:2"},
            pattern=ONE_OF_TWO,
            method="m",
            layers=["a"],
        )
        second = with_step(first, "finetune", "sparse", {"task": "sst2"})
        assert "sparsity" not in raw
        assert len(first["sparsity"]["lineage"]) == 1
        record = second["sparsity"]
        assert (record["pattern"], record["method"], record["layers"]) == ("1:2", "m", ["a"])
        assert record["format_version"] == 1
        assert [step["step"] for step in record["lineage"]] == ["prune", "finetune"]
        assert [step["from"] for step in record["lineage"]] == ["org/model", "sparse"]
        assert record["lineage"][1]["arguments"] == {"task": "sst2"}

    def test_a_source_is_named_without_its_path(self, tmp_path: Path) -> None:
        (tmp_path / "my-model").mkdir()
        assert source_name(tmp_path / "my-model") == "my-model"
        assert source_name(str(tmp_path / "my-model" / ".")) == "my-model"
        assert source_name("org/name") == "org/name"
