"""`sparsebert halve`: one call from a dense model to a packed one, resumed, judged and told."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from short_runs import FAST
from sparsebert import halve, load, pack
from sparsebert.bench.result import BenchResult, Row
from sparsebert.bench.workloads import Shape
from sparsebert.cli import main
from sparsebert.diagnosis.system import AvailableMemory
from sparsebert.errors import CheckpointError, DataError, InputError, OutputError
from sparsebert.halving.comparison import (
    bootstrap,
    correlation_interval,
)
from sparsebert.halving.effort import EFFORTS, Plan, make_plan
from sparsebert.halving.estimate import Pace
from sparsebert.halving.judgement import Judgement
from sparsebert.halving.resources import disk_needed, memory_needed
from sparsebert.halving.result import speed_sentences, speedups, unsteady
from sparsebert.halving.rows import prepare
from sparsebert.halving.run import commands
from sparsebert.halving.subject import recognise
from sparsebert.halving.texts import gather, with_every_class
from sparsebert.packing import is_packed
from sparsebert.tasks.examples import load_split
from sparsebert.tasks.own import own_task
from sparsebert.tasks.table import CUSTOM
from sparsebert.tasks.texts import read_texts
from tiny_models import TinyBert
from tiny_tasks import letters, write_rows, write_squad


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 texts of the kind that the shared teacher knows, without labels."""
    random = np.random.default_rng(5)
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(letters(random, "xy"[row % 2]) for row in range(80)))
    return path


class Page(HTMLParser):
    """What a page fetches or runs, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.foreign: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.foreign += [tag] if tag in ("script", "link", "img", "iframe") else []

    def handle_data(self, data: str) -> None:
        self.words.append(data)


class TestTask:
    def test_a_classifier_without_labels_is_judged_by_agreement(
        self, teacher: Path, lines: Path, tmp_path: Path
    ) -> None:
        said: list[str] = []
        result = halve(teacher, tmp_path / "out", texts=[lines], said=said.append, **FAST)
        assert is_packed(tmp_path / "out")
        assert "its own teacher" in " ".join(said)
        assert said[-1] == (
            "Steps: 1. prune by second order; 2. distil, up to 2 rounds; 3. pack to int8; "
            "4. compare with the dense model"
        )
        assert result.judgement.agreement
        assert result.judgement.dense == 100
        dense, halved = load(teacher), load(tmp_path / "out")
        rows = json.loads((tmp_path / "out" / "halving.json").read_text())["judgement"]["rows"]
        assert rows == 8  # a tenth
        assert dense.config.labels == halved.config.labels
        assert result.judgement.halved >= 75
        titles = [step.title for step in result.steps]
        assert titles == ["prune by second order", "distil", "pack to int8"]
        assert result.judgement.interval is not None
        assert not (tmp_path / "out.halving").exists()
        page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
        assert page.foreign == []
        assert "agreement" in " ".join(page.words)
        assert (tmp_path / "out" / "recipe.yaml").is_file()

    def test_labels_are_for_scoring_alone(self, teacher: Path, data: Path, tmp_path: Path) -> None:
        """With every label of the training rows turned round the weights are the same."""
        turned = tmp_path / "turned"
        shutil.copytree(data, turned)
        rows = [json.loads(line) for line in (turned / "train.jsonl").read_text().splitlines()]
        other = {"yes": "no", "no": "yes"}
        write_rows(turned / "train.jsonl", [{**row, "label": other[row["label"]]} for row in rows])
        for place in (data, turned):
            halve(teacher, tmp_path / f"out-{place.name}", data=place, **FAST)
        first, second = (tmp_path / f"out-{place.name}" for place in (data, turned))
        assert (first / "packed.safetensors").read_bytes() == (
            second / "packed.safetensors"
        ).read_bytes()

    def test_every_class_has_a_row(self) -> None:
        logits = np.array([[3, 2, 2.9], [3, 2.5, 2.8], [3, 1, 1], [3, 1, 0]])
        found = with_every_class(logits.argmax(axis=1), logits)
        assert found.tolist() == [2, 1, 0, 0]
        with pytest.raises(DataError, match="there are 2 texts to learn from, but the model has 3"):
            with_every_class(logits[:2].argmax(axis=1), logits[:2])

    def test_rows_to_score_on_are_not_calibrated_on(
        self, teacher: Path, data: Path, tmp_path: Path
    ) -> None:
        shutil.copy(data / "train.jsonl", tmp_path / "tickets.jsonl")

        def stop(label: str, done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            halve(
                teacher,
                tmp_path / "out",
                data=tmp_path / "tickets.jsonl",
                effort="quick",
                progress=lambda label, *_: stop(label, 0, 0) if "prune" in label else None,
                **FAST,
            )
        work = tmp_path / "out.halving"
        held = load_split(own_task(CUSTOM, work / "scored"), work / "scored", "validation").texts
        assert held
        learnt = read_texts(work / "texts.parquet")
        train = load_split(own_task(CUSTOM, work / "scored"), work / "scored", "train").texts
        assert learnt == list(dict.fromkeys(train))

    def test_an_encoder_is_fine_tuned_first(self, dense: Path, data: Path, tmp_path: Path) -> None:
        result = halve(dense, tmp_path / "out", data=data, **FAST)
        assert result.steps[0].title == "fine-tune the dense model"
        assert result.judgement.metric == "accuracy"
        assert not result.judgement.agreement
        assert result.judgement.interval is not None
        low, high = result.judgement.interval
        assert low <= -result.judgement.drop <= high

    def test_one_file_is_divided_alike_for_both(
        self, teacher: Path, data: Path, tmp_path: Path
    ) -> None:
        shutil.copy(data / "train.jsonl", tmp_path / "tickets.jsonl")
        result = halve(
            teacher, tmp_path / "out", data=tmp_path / "tickets.jsonl", effort="quick", **FAST
        )
        assert result.judgement.rows == 12


class TestPromise:
    def test_missed(
        self, teacher: Path, lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A promise that cannot be kept: as many rounds as the effort has, and exit code 1."""
        arguments = ["halve", teacher, tmp_path / "out", "--texts", lines, "--no-bench"]
        with pytest.raises(SystemExit) as stop:
            main([*map(str, arguments), "--effort", "quick", "--max-drop", "0"])
        out = capsys.readouterr().out
        result = json.loads((tmp_path / "out" / "halving.json").read_text())
        assert stop.value.code == (0 if result["held"] else 1)
        assert ("were allowed" in out) is not result["held"]
        assert is_packed(tmp_path / "out")

    def test_rows_to_choose_on_are_neither_learnt_from_nor_reported_on(
        self, teacher: Path, data: Path, lines: Path, tmp_path: Path
    ) -> None:
        for name, given in {"own": {"data": data}, "texts": {"texts": [lines]}}.items():
            subject = recognise(teacher, **given)
            gathered = gather(subject)
            (tmp_path / name).mkdir()
            rows = prepare(tmp_path / name, subject, gathered, choose=True, threads=1)
            assert isinstance(rows.scored, Path)
            assert isinstance(rows.choice, Path)
            learnt = read_texts(rows.folders.texts)
            assert rows.choice == rows.folders.data
            parts = [
                load_split(own_task(CUSTOM, folder, split="validation"), folder, "validation").texts
                for folder in (rows.choice, rows.scored)
            ]
            assert min(map(len, (learnt, *parts))) > 0
            # Twenty-odd words make some texts twice in the user's own rows.
            apart = [set(learnt), *map(set, parts)]
            if name == "texts":
                assert not apart[0] & apart[1]
                assert not (apart[0] | apart[1]) & apart[2]
            train = load_split(
                own_task(CUSTOM, rows.folders.data), rows.folders.data, "train"
            ).texts
            assert set(learnt) == set(train)

    @pytest.mark.parametrize(
        ("max_drop", "drops", "gained"),
        [
            (0, [3.0, 2.0, 1.95, 9.0], 0.05),
            (None, [3.0, 0.4, 0.3, 9.0], 0.1),  # within the promise of 0.5, and on while it pays
            (2, [3.0, 2.5, 1.5, 9.0], None),  # no more was asked for
        ],
    )
    def test_the_best_round_counts(
        self,
        teacher: Path,
        lines: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        max_drop: float | None,
        drops: list[float],
        gained: float | None,
    ) -> None:
        """Chosen by its drop on the rows to choose on; one that gains too little is the last."""
        places: list[str] = []
        told = iter(drops)

        def judge(subject: Any, task: str, data: Path, *models: Any, **_: Any) -> Judgement:
            places.append(data.name)
            return Judgement("accuracy", False, 90.0, 90.0 - next(told), 10, 0.5)

        monkeypatch.setattr("sparsebert.halving.run.judge_task", judge)
        standard = replace(EFFORTS["standard"], rounds=4, epochs=1)
        monkeypatch.setitem(EFFORTS, "standard", standard)
        monkeypatch.setattr("sparsebert.halving.effort._STEPS_AT_LEAST", 1)
        result = halve(teacher, tmp_path / "out", texts=[lines], bench=False, max_drop=max_drop)
        assert places == ["data", "data", "data", "scored"]
        assert result.judgement.drop == pytest.approx(9)
        assert not result.held
        told_so = any(f"gained {gained or 0:.2f} points" in note for note in result.notes)
        assert told_so is (gained is not None)
        packed = [step.command.split()[-3] for step in result.steps if "pack" in step.title]
        assert packed[-1].endswith("packed-2")

    def test_the_interval_of_a_correlation(self) -> None:
        random = np.random.default_rng(0)
        expected = random.standard_normal(400)
        near = expected + 0.1 * random.standard_normal(400)
        far = expected + random.standard_normal(400)
        low, high = correlation_interval(near, far, expected)
        told = 100 * (np.corrcoef(far, expected)[0, 1] - np.corrcoef(near, expected)[0, 1])
        assert low < told < high < 0

    def test_the_interval(self) -> None:
        assert bootstrap(50, lambda rows: -2.0) == (-2, -2)
        differences = np.tile([100.0, -100.0], 100)
        low, high = bootstrap(200, lambda rows: float(differences[rows].mean()))
        assert low < 0 < high
        # The mean of 200 such differences deviates by 100 / sqrt(200) = 7.1.
        assert high - low == pytest.approx(4 * 7.07, rel=0.15)


class TestResumption:
    @pytest.mark.parametrize("step", [1, 2])
    def test_stopped_between_steps(
        self, teacher: Path, lines: Path, tmp_path: Path, step: int
    ) -> None:
        halve(teacher, tmp_path / "whole", texts=[lines], **FAST)

        class Stopped(Exception):
            pass

        titles: list[str] = []

        def stop(label: str, done: int, total: int) -> None:
            title = label.partition(":")[0]
            if title not in titles:
                titles.append(title)
            if len(titles) > step:
                raise Stopped

        with pytest.raises(Stopped):
            halve(teacher, tmp_path / "out", texts=[lines], progress=stop, **FAST)
        assert not (tmp_path / "out").exists()
        result = halve(teacher, tmp_path / "out", texts=[lines], **FAST)
        assert [each.seconds is None for each in result.steps].count(True) == step
        name = "packed.safetensors"
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    def test_another_call_does_not_resume(self, teacher: Path, lines: Path, tmp_path: Path) -> None:
        def stop(label: str, done: int, total: int) -> None:
            if label.startswith("prune"):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            halve(teacher, tmp_path / "out", texts=[lines], progress=stop, **FAST)
        with pytest.raises(OutputError, match="different seed: use the same again"):
            halve(teacher, tmp_path / "out", texts=[lines], seed=2, **FAST)
        other = tmp_path / "texts.txt"
        other.write_text(lines.read_text() + "\nx a b\n")
        with pytest.raises(OutputError, match="different texts: use the same again"):
            halve(teacher, tmp_path / "out", texts=[other], **FAST)


@pytest.mark.thorough
class TestKilled:
    """Whole processes, ended at random moments, with no chance to tidy or with one."""

    KILLS = 5

    @pytest.mark.parametrize("kind", ["classifier", "encoder"])
    def test_killed_five_times_it_ends_with_the_same_bits(
        self, teacher: Path, dense: Path, lines: Path, tmp_path: Path, kind: str
    ) -> None:
        model = teacher if kind == "classifier" else dense

        def start(out: Path) -> subprocess.Popen[bytes]:
            # More than one checkpoint's worth of steps; the promise cannot be kept: two rounds.
            arguments = ["halve", model, out, "--texts", lines, "--max-drop", "0", "--no-bench"]
            command = [sys.executable, "-m", "sparsebert", *map(str, arguments)]
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        began = time.monotonic()
        assert start(tmp_path / "whole").wait() in (0, 1)
        whole = time.monotonic() - began
        random = np.random.default_rng()
        out, kills = tmp_path / "out", []
        while len(kills) < self.KILLS and not out.exists():
            process = start(out)
            kills.append((float(random.uniform(0.1, 0.9)) * whole, random.choice(["KILL", "INT"])))
            try:
                process.wait(timeout=kills[-1][0])
            except subprocess.TimeoutExpired:
                process.send_signal(getattr(signal, f"SIG{kills[-1][1]}"))
                process.wait()
        if not out.exists():
            assert start(out).wait() in (0, 1)
        assert is_packed(out), kills
        for name in ("packed.safetensors", "config.json", "tokenizer.json"):
            same = (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
            assert same, (name, kills)
        judged = [
            json.loads((folder / "halving.json").read_text())["judgement"]
            for folder in (out, tmp_path / "whole")
        ]
        assert judged[0] == judged[1], kills


class TestResources:
    """What disk and memory a halving takes is said before its first step."""

    def test_too_little_disk(
        self, dense: Path, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "sparsebert.checkpoint.staging.shutil.disk_usage",
            lambda _: SimpleNamespace(total=10**6, used=10**6, free=1000),
        )
        with pytest.raises(
            OutputError, match=r"takes about [\d.]+ MB of disk space .* but only 0.0 MB are free"
        ):
            halve(dense, tmp_path / "out", texts=[lines], **FAST)
        assert [path.name for path in tmp_path.iterdir()] == []

    def test_too_little_memory(
        self, dense: Path, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        few = AvailableMemory(10 * 2**20, 2**30, "machine")
        monkeypatch.setattr("sparsebert.halving.resources.available_memory", lambda: few)
        with pytest.raises(InputError, match=r"of memory, but only 10.5 MB is free: close"):
            halve(dense, tmp_path / "out", texts=[lines], **FAST)
        assert [path.name for path in tmp_path.iterdir()] == []

    def test_the_estimates_grow_with_what_is_done(self, dense: Path, data: Path) -> None:
        quick, standard, thorough = (Plan({}, rounds, 4.0, None, 0.0) for rounds in (1, 2, 4))
        alone, fine_tuned = recognise(dense), recognise(dense, data=data)
        assert disk_needed(alone, quick) < disk_needed(alone, standard)
        assert disk_needed(alone, standard) < disk_needed(alone, thorough)
        assert disk_needed(alone, quick) < disk_needed(fine_tuned, quick)
        assert memory_needed(alone, quick) <= memory_needed(alone, standard)
        # A folder each for the pruned model, each round's student, and each packed.
        weights = alone.checkpoint.tensors.nbytes
        assert disk_needed(alone, quick) > weights
        assert disk_needed(alone, thorough) > 5 * weights


class TestRefusals:
    def test_sparse_and_packed(self, dense: Path, sparse: Path, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="is already sparse"):
            halve(sparse, tmp_path / "out")
        pack(sparse, tmp_path / "packed")
        with pytest.raises(CheckpointError, match="is a packed model: pass the dense folder"):
            halve(tmp_path / "packed", tmp_path / "out")

    def test_heads(self, tiny_bert: TinyBert, teacher: Path, tmp_path: Path) -> None:
        squad = write_squad(tmp_path / "squad")
        with pytest.raises(InputError, match=r"does not fit SQuAD v1\.1"):
            halve(teacher, tmp_path / "out", data=squad)
        rows = [{"text": f"a {label}", "label": label} for label in ("one", "two", "three") * 3]
        write_rows(tmp_path / "three" / "train.jsonl", rows)
        with pytest.raises(DataError, match="the data has 3 labels"):
            halve(teacher, tmp_path / "out", data=tmp_path / "three")

    def test_arguments(self, dense: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="choose quick, standard, thorough"):
            halve(dense, tmp_path / "out", effort="much")
        with pytest.raises(InputError, match="max_drop must be at least 0"):
            halve(dense, tmp_path / "out", max_drop=-1)
        with pytest.raises(InputError, match="add --data"):
            halve(dense, tmp_path / "out", task="sst2")
        (tmp_path / "there").mkdir()
        (tmp_path / "there" / "file").touch()
        with pytest.raises(OutputError, match="exists"):
            halve(dense, tmp_path / "there")

    def test_texts(self, tiny_bert: TinyBert, tmp_path: Path) -> None:
        model = tiny_bert("encoder")
        (tmp_path / "few.txt").write_text("one text\nanother text\none text\n")
        result = halve(
            model, tmp_path / "out", texts=[tmp_path / "few.txt"], effort="quick", **FAST
        )
        assert any("1 of 3 texts are duplicates" in note for note in result.notes)
        assert any("there are only 2 texts" in note for note in result.notes)
        (tmp_path / "other.txt").write_text("\n".join(["日本語の文です", "これも文です"] * 30))
        with pytest.raises(DataError, match="another language or script"):
            halve(model, tmp_path / "third", texts=[tmp_path / "other.txt"], **FAST)
        assert not (tmp_path / "third.halving").exists()


def test_the_plan_fits_the_time() -> None:
    standard = EFFORTS["standard"]
    few = make_plan({}, standard, 60, Pace(1e-3, 2e-3))
    assert (few.epochs, few.max_rows) == (20, None)
    some = make_plan({}, standard, 5000, Pace(1e-3, 2e-3))
    assert (some.epochs, some.max_rows) == (4, None)
    assert some.estimate == pytest.approx(40)  # by the clock
    many = make_plan({}, standard, 400_000, Pace(10e-3, 10e-3))
    assert many.epochs == 4
    assert many.estimate == pytest.approx(standard.seconds, rel=1e-3)
    assert many.max_rows == 45_000
    assert make_plan({}, EFFORTS["thorough"], 400_000, Pace(10e-3, 10e-3)).max_rows is None
    quick = make_plan({}, EFFORTS["quick"], 400_000, Pace(10e-3, 10e-3))
    assert (quick.rounds, quick.epochs, quick.max_rows) == (1, 1, 18_000)
    # From texts alone: each is seen less often, and only then are there fewer.
    alone = make_plan({}, standard, 100_000, Pace(10e-3, 10e-3), texts_alone=True)
    assert (alone.epochs, alone.max_rows) == (1.8, None)
    alone = make_plan({}, standard, 400_000, Pace(10e-3, 10e-3), texts_alone=True)
    assert (alone.epochs, alone.max_rows) == (1, 180_000)


class TestDryRun:
    def test_the_commands_come_to_the_same(self, teacher: Path, data: Path, tmp_path: Path) -> None:
        said, steps = commands(teacher, tmp_path / "out", data=data, effort="quick")
        assert any("2 classes of text" in each for each in said)
        (tmp_path / "out.halving").mkdir()
        for step in steps:
            with pytest.raises(SystemExit) as stop:
                main(step.split()[1:])
            assert stop.value.code == 0
        halve(teacher, tmp_path / "whole", data=data, effort="quick", **FAST)
        name = "packed.safetensors"
        by_hand = tmp_path / "out.halving" / "packed-1" / name
        assert by_hand.read_bytes() == (tmp_path / "whole" / name).read_bytes()

    def test_the_command_prints_them(
        self, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            main(["halve", str(teacher), str(tmp_path / "out"), "--dry-run"])
        out = capsys.readouterr().out.splitlines()
        assert out[0].startswith("# ")
        assert [line.split()[1] for line in out if line[0] != "#"] == ["prune", "pack"]
        assert list(tmp_path.iterdir()) == []


@pytest.mark.thorough
def test_the_report_with_latencies(teacher: Path, lines: Path, tmp_path: Path) -> None:
    result = halve(teacher, tmp_path / "out", texts=[lines], effort="quick")
    assert result.bench is not None
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    words = " ".join(page.words)
    assert "halved, int8" in words
    assert result.bench.machine["cpu"] in words


def bench_of(**times: list[float]) -> BenchResult:
    """Rows of one shape: an engine and its time in each round, ms."""
    shape = Shape(1, 128)
    rows = [
        Row(
            shape,
            name.replace("_", "-"),
            *(float(np.percentile(each, share)) for share in (50, 25, 75)),
            min(each),
            None,
            tuple(each),
        )
        for name, each in times.items()
    ]
    return BenchResult("model", "1:2", {}, 1, 3, "sparsebert-int8", rows=rows)


class TestSpeed:
    def test_beside_torch_and_the_fastest_other(self) -> None:
        bench = bench_of(
            sparsebert_int8=[1, 2, 1], torch=[8, 16, 8], fast_peer=[3, 6, 3], slow_peer=[9, 9, 9]
        )
        found = {each.peer: each.times for each in speedups(bench)}
        assert found == {"torch": 8, "fast-peer": 3}
        lines = speed_sentences(bench)
        assert lines[0] == "Speed-up over torch: 8.0 at 1x128 (batch x tokens)."
        assert "fast-peer, the fastest other engine" in lines[1]
        assert speedups(bench_of(sparsebert_int8=[1, 1, 1])) == []

    def test_a_busy_machine_is_told(self) -> None:
        assert unsteady(bench_of(sparsebert_int8=[1, 1.1, 1.2])) is None
        note = unsteady(bench_of(sparsebert_int8=[1, 2, 4]))
        assert note is not None
        assert "times at 1x128 vary widely" in note
