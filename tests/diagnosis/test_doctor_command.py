"""`sparsebert doctor`, as its user meets it, and docs/troubleshooting.md, which explains it."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sparsebert
import sparsebert.diagnosis
from bert_folders import write_bert
from checkout import CHECKOUT
from sparsebert.cli.app import app
from sparsebert.diagnosis import Check, Finding, Report, Severity
from sparsebert.diagnosis.report import SIGNS, Problem, plural, share
from tiny_tasks import write_rows

TESTS = Path(__file__).parent
GUIDE = CHECKOUT / "docs" / "troubleshooting.md"
KINDS = sorted(
    {
        value.name: value
        for module in pkgutil.iter_modules(sparsebert.diagnosis.__path__)
        for value in vars(importlib.import_module(f"sparsebert.diagnosis.{module.name}")).values()
        if isinstance(value, Problem)
    }.items()
)
NAMES = [name for name, _ in KINDS]


@pytest.mark.parametrize("kind", NAMES)
def test_every_kind_has_an_entry_and_a_test(kind: str) -> None:
    assert f"\n### {kind}\n" in GUIDE.read_text(encoding="utf-8")
    tests = [path for path in TESTS.glob("test_doctor_*.py") if path.name != Path(__file__).name]
    assert any(f'"{kind}"' in path.read_text(encoding="utf-8") for path in tests)


@pytest.mark.parametrize(("name", "kind"), KINDS, ids=NAMES)
def test_an_entry_says_how_bad_it_is(name: str, kind: Problem) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    entry = text.partition(f"\n### {name}\n")[2].partition("\n### ")[0].strip()
    assert entry.lower().startswith(f"{kind.severity.value}.")
    assert len(entry) > 80, "an entry explains"


def test_no_entry_is_of_a_kind_that_is_gone() -> None:
    headings = re.findall(r"^### (.+)$", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(headings) == NAMES


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A sparse model of which one layer was replaced by its dense self."""
    from safetensors.numpy import load_file, save_file

    dense = write_bert(tmp_path / "dense")
    sparsebert.prune(dense, tmp_path / "broken")
    tensors = load_file(tmp_path / "broken/model.safetensors")
    name = "encoder.layer.0.output.dense.weight"
    tensors[name] = load_file(dense / "model.safetensors")[name]
    save_file(tensors, tmp_path / "broken/model.safetensors", metadata={"format": "pt"})
    return tmp_path / "broken"


def doctor(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["doctor", *map(str, arguments)])
    return result.exit_code, result.stdout


def test_a_sound_model_exits_0_and_says_what_was_looked_at(tmp_path: Path) -> None:
    code, out = doctor(write_bert(tmp_path / "model"))
    assert code == 0
    assert out.splitlines()[0] == "weights"
    assert "  ok      recorded pattern: none is recorded" in out
    assert "  skipped record: no training.json" in out
    assert "11 checks: nothing wrong. 1 check skipped." in out


def test_an_error_exits_1_and_says_what_to_do(broken: Path) -> None:
    code, out = doctor(broken)
    assert code == 1
    assert f"ERROR {broken}: 96 weights that masks.safetensors marks as pruned are not zero" in out
    assert "[revived-weights]" in out
    assert "do: something trained the weights without locking their zeros" in out
    assert "1 error. 1 check skipped. The names in brackets are explained" in out


def test_json_is_one_object(broken: Path) -> None:
    code, out = doctor(broken, "--json")
    assert code == 1
    found = json.loads(out)
    assert (found["healthy"], found["counts"]["error"]) == (False, 1)
    finding = next(
        each
        for check in found["checks"]
        for each in check["findings"]
        if each["kind"] == "revived-weights"
    )
    assert (finding["severity"], finding["count"]) == ("error", 96)
    assert finding["examples"] == [
        "encoder.layer.0.output.dense.weight: 96 weights, 96 of 96 (100.0 %) pairs broken"
    ]


def test_warnings_and_notes_exit_0(tmp_path: Path) -> None:
    rows = [{"text": f"a {row % 9}", "label": row % 3} for row in range(12)]
    code, out = doctor("--data", write_rows(tmp_path / "mine.jsonl", rows), "--task", "custom")
    assert code == 0
    assert "checks: 1 warning." in out  # three rows repeat others


def test_a_task_that_nobody_named(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [{"sentence": "a", "label": 0}])
    model = write_bert(tmp_path / "model")
    result = CliRunner().invoke(app, ["doctor", str(model), "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert "which task" in result.stderr


def test_the_system_for_a_bug_report(tmp_path: Path) -> None:
    code, out = doctor("--system")
    assert code == 0
    said = dict(line.split(":", 1) for line in out.splitlines())
    assert said["sparsebert"].strip() == sparsebert.__version__
    for name in ("cpu", "instruction_set", "memory", "threads", "torch", "OMP_NUM_THREADS"):
        assert said[name].strip()
    assert str(Path.home()) not in out
    code, out = doctor("--system", "--json")
    assert set(json.loads(out)) == {"system"}
    code, out = doctor("--system", write_bert(tmp_path / "model"))
    assert "numpy:" in out
    assert "weights\n" in out


def test_a_look_at_a_model_imports_no_torch(tmp_path: Path) -> None:
    model = write_bert(tmp_path / "model")
    script = (
        "import sys; from sparsebert.diagnosis import diagnose; "
        f"assert diagnose({str(model)!r}).healthy; print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


class TestListing:
    def report(self) -> Report:
        finding = Finding("odd-thing", Severity.WARNING, "here", "it is odd.", "mend it.", 7, 9)
        many = tuple(f"thing {number}" for number in range(7))
        listed = Finding("bad-thing", Severity.ERROR, "there", "bad.", "stop.", examples=many)
        checks = (
            Check.of("one", "first", "looked at 9", [None]),
            Check.of("one", "second", "looked at 9", [finding, listed]),
            Check.skip("two", "third", "nothing there"),
        )
        return Report("model", None, None, checks)

    def test_on_a_terminal(self) -> None:
        assert list(self.report().lines(signs=True)) == [
            "one",
            "  ✓ first: looked at 9",
            "  ✗ second: looked at 9",
            "    ! here: it is odd. [odd-thing]",
            "      do: mend it.",
            "    ✗ there: bad. [bad-thing]",
            *(f"        thing {number}" for number in range(5)),
            "        and 2 more (--json lists them)",
            "      do: stop.",
            "",
            "two",
            "  - third: nothing there",
            "",
            "2 checks: 1 error, 1 warning. 1 check skipped. The names in brackets are explained in "
            "docs/troubleshooting.md.",
        ]

    def test_elsewhere_it_is_plain(self) -> None:
        text = "\n".join(self.report().lines(signs=False))
        assert text.isascii()
        assert not any(sign in text for sign in SIGNS.values() if sign != "!")
        assert "  ERROR   second" in text
        assert "          warning here: it is odd. [odd-thing]" in text

    def test_numbers_in_words(self) -> None:
        assert share(1203, 67349) == "1,203 of 67,349 (1.8 %)"
        assert share(2, 40430) == "2 of 40,430 (0.0049 %)"
        assert (plural(1, "row"), plural(2000, "row")) == ("1 row", "2,000 rows")
