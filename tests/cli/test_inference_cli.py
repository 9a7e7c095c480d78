"""`embed`, `classify`, `answer`, `tag`, `fill`, `rerank`: JSON lines out, whatever comes in."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import Result

from commands import invoke
from sentence_folders import with_settings
from sentences import SENTENCES, long_text
from sparsebert import load, pack
from sparsebert.checkpoint import multi_vector
from sparsebert.checkpoint.embedding_kinds import EmbeddingKind
from sparsebert.cli.embed import Kind, NumberType, Pooling, Task
from sparsebert.cli.lines import LineWorker, _chunks, text_parser
from sparsebert.cli.npy_file import NpyFile
from sparsebert.cli.tag import Aggregation
from sparsebert.errors import InputError, OutputError
from sparsebert.inference import embedding_model, embeddings, entities
from sparsebert.inference.pooling import POOLING_MODES
from sparsebert.progress import silent


@pytest.fixture(scope="module")
def encoder(tiny_bert) -> Path:
    return tiny_bert()


@pytest.fixture(scope="module")
def classifier(tiny_bert) -> Path:
    return tiny_bert("sequence-classification")


@pytest.fixture(scope="module")
def reader(tiny_bert) -> Path:
    return tiny_bert("question-answering")


@pytest.fixture(scope="module")
def tagger(tiny_bert) -> Path:
    return tiny_bert("token-classification")


def results(result: Result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def command(*arguments: object) -> tuple[list[str], dict[str, str]]:
    """The real thing in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return [sys.executable, "-m", "sparsebert", *map(str, arguments)], environment


def test_choices_are_those_of_the_library() -> None:
    assert Literal[Kind] == Literal[EmbeddingKind, "hybrid"]
    assert Task == multi_vector.Task
    assert Pooling == embedding_model.PoolingMode
    assert get_args(Pooling) == POOLING_MODES
    assert NumberType == embeddings.EmbeddingType
    assert Literal[Aggregation] == Literal["none", entities.Aggregation]


class TestEmbed:
    def test_json_lines_in_order(self, encoder):
        done = invoke("embed", encoder, lines="\n".join(SENTENCES))
        assert done.exit_code == 0
        expected = load(encoder).embed(SENTENCES)
        found = np.array([each["embedding"] for each in results(done)], np.float32)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 1e-5

    def test_prompts(self, encoder, tmp_path):
        prompts = {"query": "the wall: ", "passage": "noon, "}
        settings = {"prompts": prompts, "default_prompt_name": "query"}
        folder = with_settings(encoder, tmp_path / "prompted", **settings)
        model = load(encoder)
        for options, prompt in (
            ((), "the wall: "),
            (("--prompt", ""), ""),
            (("--prompt", "a "), "a "),
            (("--prompt-name", "passage"), "noon, "),
        ):
            found = results(invoke("embed", folder, *options, lines="ferry\n"))[0]["embedding"]
            expected = model.embed(prompt + "ferry")
            assert np.array_equal(np.array(found, np.float32), expected)
        options = ("--kind", "tokens", "--prompt-name", "passage")
        tokens = results(invoke("embed", folder, *options, lines="ferry\n"))[0]["embeddings"]
        assert np.array_equal(np.array(tokens, np.float32), model.embed_tokens("noon, ferry"))
        done = invoke("embed", folder, "--prompt-name", "other", lines="ferry\n")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "has no prompt of that name; it has query, passage." in done.stderr

    def test_numbers_survive_being_written(self, encoder):
        done = invoke("embed", encoder, lines="the ferry leaves\n")
        found = np.array(results(done)[0]["embedding"], np.float32)
        assert np.array_equal(found, load(encoder).embed("the ferry leaves"))

    def test_npy(self, encoder, tmp_path):
        (tmp_path / "in.txt").write_text("\n".join(SENTENCES))
        out = tmp_path / "out.npy"
        done = invoke("embed", encoder, "-i", tmp_path / "in.txt", "-o", out, "--json")
        assert done.exit_code == 0
        summary = json.loads(done.stdout)
        assert (summary["rows"], summary["columns"], summary["errors"]) == (20, 32, [])
        assert np.abs(np.load(out) - load(encoder).embed(SENTENCES)).max() < 1e-5
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    @pytest.mark.parametrize("dtype", ["float16", "int8", "binary"])
    def test_shorter_and_smaller(self, encoder, tmp_path, dtype):
        options = ("--dimensions", 12, "--dtype", dtype)
        expected = load(encoder).embed(SENTENCES, dimensions=12, output=dtype)
        out = tmp_path / "out.npy"
        lines = "\n".join(SENTENCES)
        assert invoke("embed", encoder, "-o", out, *options, lines=lines).exit_code == 0
        found = np.load(out)
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        done = invoke("embed", encoder, *options, lines=lines)
        listed = np.array([each["embedding"] for each in results(done)])
        for each in (found, listed):
            assert np.abs(each.astype(float) - expected.astype(float)).max() <= 1e-3 * (
                dtype == "float16"
            )

    def test_too_many_dimensions(self, encoder, tmp_path):
        done = invoke("embed", encoder, "-o", tmp_path / "o.npy", "--dimensions", 99, lines="a")
        assert done.exit_code == 1
        assert "dimensions must be from 1 to 32" in done.stderr
        # What no line could be embedded with is said once, and no line is read.
        for options, said in (
            (("--dimensions", 33), "error: dimensions must be from 1 to 32"),
            (("--prompt", "\udcff"), "error: prompt is not valid Unicode"),
        ):
            done = invoke("embed", encoder, *options, lines="a\nb\n")
            assert (done.exit_code, done.stdout) == (1, "")
            assert done.stderr.startswith(said)
        assert not (tmp_path / "o.npy").exists()

    def test_a_blank_line_first_does_not_hide_what_the_others_are(self, encoder):
        done = invoke("embed", encoder, lines='\n \n{"text": "the ferry leaves"}\n')
        assert done.exit_code == 0
        found = np.array([each["embedding"] for each in results(done)], np.float32)
        assert found == pytest.approx(load(encoder).embed(["", " ", "the ferry leaves"]), abs=1e-6)

    def test_a_pipe_as_input(self, encoder, tmp_path):
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_text, args=("the ferry leaves\n",))
        writer.start()
        done = invoke("embed", encoder, "-i", pipe)
        writer.join()
        assert done.exit_code == 0
        assert len(results(done)) == 1
        assert invoke("embed", encoder, "-i", tmp_path).exit_code == 2

    def test_npy_keeps_a_row_for_a_bad_line(self, encoder, tmp_path):
        out = tmp_path / "out.npy"
        done = invoke("embed", encoder, "-o", out, "--json", lines=b"good\n\xff\nalso good\n")
        assert done.exit_code == 1
        summary = json.loads(done.stdout)
        assert [each["line"] for each in summary["errors"]] == [2]
        rows = np.load(out)
        assert rows.shape == (3, 32)
        assert np.isnan(rows[1]).all()
        assert np.isfinite(rows[[0, 2]]).all()

    def test_output_is_not_overwritten(self, encoder, tmp_path):
        out = tmp_path / "out.npy"
        out.write_bytes(b"precious")
        done = invoke("embed", encoder, "-o", out, lines="text\n")
        assert done.exit_code == 1
        assert "--force" in done.stderr
        assert out.read_bytes() == b"precious"
        assert invoke("embed", encoder, "-o", out, "--force", lines="text\n").exit_code == 0
        assert np.load(out).shape == (1, 32)

    def test_output_must_be_npy(self, encoder, tmp_path):
        done = invoke("embed", encoder, "-o", tmp_path / "out.csv", lines="text\n")
        assert done.exit_code == 2

    def test_pooling_and_normalize(self, encoder):
        done = invoke("embed", encoder, "--pooling", "cls", "--normalize", lines="the ferry\n")
        found = results(done)[0]["embedding"]
        expected = load(encoder).embed("the ferry", pooling="cls", normalize=True)
        assert found == pytest.approx(expected.tolist(), abs=1e-6)
        assert invoke("embed", encoder, "--pooling", "best", lines="a\n").exit_code == 2

    def test_a_tab_is_part_of_the_text(self, encoder):
        tabbed = results(invoke("embed", encoder, lines="the ferry\tleaves\n"))
        spaced = results(invoke("embed", encoder, lines="the ferry leaves\n"))
        assert tabbed == spaced


class TestEmbedKinds:
    def test_sparse(self, tiny_bert):
        """What a SPLADE model makes when it is asked for nothing else, and others when asked."""
        folder = tiny_bert("masked-lm")
        lines = "\n".join(SENTENCES[:3])
        expected = load(folder).embed_sparse(SENTENCES[:3])
        for each, wanted in zip(
            results(invoke("embed", folder, "--kind", "sparse", lines=lines)), expected, strict=True
        ):
            assert each["indices"] == wanted.indices.tolist()
            assert np.array_equal(np.array(each["values"], np.float32), wanted.values)

    def test_tokens(self, tiny_bert, tmp_path):
        folder = shutil.copytree(tiny_bert(), tmp_path / "colbert")
        tensors = load_file(folder / "model.safetensors")
        tensors = {f"bert.{name}": value for name, value in tensors.items()}
        projection = np.random.default_rng(6).standard_normal((14, 32)).astype(np.float32)
        save_file({**tensors, "linear.weight": projection}, folder / "model.safetensors")
        raw = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**raw, "architectures": ["HF_ColBERT"]}))
        model = load(folder)
        for options, task in (((), "document"), (("--kind", "tokens", "--task", "query"), "query")):
            (found,) = results(invoke("embed", folder, *options, lines="ferry.\n"))
            expected = model.embed_tokens("ferry.", task=task)
            assert np.array_equal(np.array(found["embeddings"], np.float32), expected)
        done = invoke("embed", folder, "--dimensions", 3, lines="ferry\n")
        assert done.exit_code == 2
        assert "only applies to --kind dense, not to tokens" in " ".join(done.stderr.split())

    def test_wrong_use(self, encoder, tmp_path):
        for options, complaint in (
            (
                ("--kind", "tokens", "-o", tmp_path / "a.npy"),
                "omit it to print --kind tokens as JSON lines",
            ),
            (
                ("--task", "query"),
                "only applies to --kind sparse and tokens, not to dense",
            ),
            (
                ("--kind", "hybrid", "--pooling", "cls"),
                "only applies to --kind dense, not to hybrid",
            ),
        ):
            done = invoke("embed", encoder, *options, lines="a\n")
            assert done.exit_code == 2
            said = " ".join(done.stderr.replace("\u2502", " ").split())
            assert complaint in said
        done = invoke("embed", encoder, "--kind", "hybrid", lines="a\n")
        assert done.exit_code == 1
        assert "such as BGE-M3 has" in " ".join(done.output.split())


class TestClassify:
    def test_best_label(self, classifier):
        done = invoke("classify", classifier, lines="\n".join(SENTENCES))
        expected = load(classifier).classify(SENTENCES, top_k=1)
        assert done.exit_code == 0
        for found, best in zip(results(done), expected, strict=True):
            assert found == {**best[0], "score": pytest.approx(best[0]["score"], abs=1e-5)}

    def test_several_labels(self, classifier, tiny_bert):
        found = results(invoke("classify", classifier, "--top-k", "2", lines="the ferry\n"))[0]
        assert found["labels"][0]["label"] == found["label"]
        assert len(found["labels"]) == 2
        several = tiny_bert(
            "sequence-classification", num_labels=4, problem_type="multi_label_classification"
        )
        assert len(results(invoke("classify", several, lines="the ferry\n"))[0]["labels"]) == 4

    @pytest.mark.parametrize(
        "line",
        [
            "the ferry\tleaves at noon",
            json.dumps({"text": "the ferry", "text_pair": "leaves at noon"}),
        ],
    )
    def test_pairs(self, classifier, line):
        best = load(classifier).classify(("the ferry", "leaves at noon"))[0]
        found = results(invoke("classify", classifier, lines=line + "\n"))
        assert found == [{**best, "score": pytest.approx(best["score"], abs=1e-6)}]

    def test_bad_lines_do_not_stop_the_others(self, classifier):
        lines = b"good\n\n\xff\xfe broken\n   \n\x00\nlast without an end"
        done = invoke("classify", classifier, lines=lines)
        assert done.exit_code == 1
        found = results(done)
        assert [each.get("line") for each in found] == [None, None, 3, None, None, None]
        assert "UTF-8" in found[2]["error"]
        blank = load(classifier).classify("")[0]
        for place in (1, 3, 4):  # the model sees the same of each: its special tokens
            assert found[place] == {**blank, "score": pytest.approx(blank["score"], abs=1e-6)}
        assert "1 of 6 lines failed" in done.stderr
        assert "Traceback" not in done.stderr

    def test_bad_json_lines(self, classifier):
        lines = [
            '{"text": "fine"}',
            '{"text": 5}',
            '{"texts": "a"}',
            "[1]",
            "{",
            '{"text": "half \\ud83d"}',
            '{"text": "a", "text_pair": ""}',
            '{"text": "fine", "text_pair": null}',
        ]
        found = results(invoke("classify", classifier, lines="\n".join(lines)))
        assert [each.get("line") for each in found] == [None, 2, 3, 4, 5, 6, None, None]

    def test_bad_pairs(self, classifier):
        found = results(invoke("classify", classifier, lines="a\tb\nno tab\na\tb\tc\n\t\n"))
        assert [each.get("line") for each in found] == [None, 2, 3, None]
        assert found[1]["error"] == "the line has 0 tabs: a pair of texts has one."

    def test_format_can_be_forced(self, classifier):
        text = '{"text": "a"}'
        as_text = results(invoke("classify", classifier, "--format", "text", lines=text))
        expected = load(classifier).classify(text)[0]
        assert as_text[0]["score"] == pytest.approx(expected["score"], abs=1e-6)
        assert invoke("classify", classifier, "--format", "tsv", lines=text).exit_code == 1

    def test_windows_line_ends_and_byte_order_mark(self, classifier):
        plain = invoke("classify", classifier, lines=b"the ferry\nleaves\n")
        odd = invoke("classify", classifier, lines=b"\xef\xbb\xbfthe ferry\r\nleaves\r\n")
        assert odd.stdout == plain.stdout
        assert len(results(odd)) == 2

    def test_long_lines_are_cut_and_told_of_once(self, classifier):
        lines = ["short", long_text(80), "short", long_text(90)]
        done = invoke("classify", classifier, lines="\n".join(lines))
        assert done.exit_code == 0
        assert len(results(done)) == 4
        assert (
            "2 lines were longer than 64 tokens and truncated; the first is line 2" in done.stderr
        )

    def test_strict(self, classifier):
        lines = ["short", long_text(80), "short", long_text(90)]
        done = invoke("classify", classifier, "--strict", lines="\n".join(lines))
        assert done.exit_code == 1
        found = results(done)
        assert [each.get("line") for each in found] == [None, 2, None, 4]
        assert found[1]["error"].startswith("the text has ")

    def test_wrong_head_and_wrong_model(self, encoder, tmp_path):
        done = invoke("classify", encoder, lines="text\n")
        assert done.exit_code == 1
        assert "cannot classify: it can embed" in done.stderr
        assert invoke("classify", tmp_path, lines="text\n").exit_code == 1

    def test_no_lines(self, classifier):
        done = invoke("classify", classifier, lines="")
        assert (done.exit_code, done.stdout) == (0, "")

    def test_wrong_use(self, classifier, tmp_path):
        assert invoke("classify", classifier, "--batch-size", "0").exit_code == 2
        assert invoke("classify", classifier, "-i", tmp_path / "nothing.txt").exit_code == 2
        assert invoke("classify").exit_code == 2

    def test_help_needs_no_torch(self):
        for verb in ("embed", "classify", "answer"):
            arguments, environment = command(verb, "--help")
            arguments[1:3] = ["-X", "importtime", "-m", "sparsebert"]
            done = subprocess.run(
                arguments, env=environment, capture_output=True, text=True, check=True
            )
            assert "--input" in done.stdout
            assert "| torch" not in done.stderr
            assert "numpy" not in done.stderr


class TestAnswer:
    def test_one_question(self, reader):
        context = SENTENCES[17]
        done = invoke("answer", reader, "--question", "Who asked?", "--context", context)
        assert done.exit_code == 0
        expected = load(reader).answer("Who asked?", context)
        assert json.loads(done.stdout) == expected

    def test_json_lines(self, reader):
        asked = [{"question": "Who asked?", "context": text} for text in SENTENCES]
        asked[3] = {"question": "Who asked?"}
        asked[5]["context"] = ""
        lines = "\n".join(map(json.dumps, asked))
        done = invoke("answer", reader, "--batch-size", "3", lines=lines)
        assert done.exit_code == 1
        found = results(done)
        assert len(found) == 20
        assert [each["line"] for each in found if "line" in each] == [4, 6]
        best = load(reader).answer("Who asked?", SENTENCES[-1])
        assert (found[-1]["start"], found[-1]["end"]) == (best["start"], best["end"])

    def test_several_answers(self, reader):
        line = json.dumps({"question": "Who asked?", "context": SENTENCES[17]})
        found = results(invoke("answer", reader, "--top-k", "3", lines=line))[0]
        assert len(found["answers"]) == 3
        assert found["text"] == found["answers"][0]["text"]

    def test_wrong_use(self, reader, tmp_path):
        assert invoke("answer", reader, "--question", "Who?").exit_code == 2
        (tmp_path / "in").write_text("")
        both = ["--question", "Who?", "--context", "She.", "-i", tmp_path / "in"]
        assert invoke("answer", reader, *both).exit_code == 2


class TestStreaming:
    def test_a_line_is_answered_before_the_next_is_written(self, classifier):
        arguments, environment = command("classify", classifier)
        with subprocess.Popen(
            arguments, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            watchdog = threading.Timer(60, process.kill)
            watchdog.start()
            for text in (b"the ferry\n", b"leaves at noon\n"):
                process.stdin.write(text)
                process.stdin.flush()
                assert b"label" in process.stdout.readline()
            process.stdin.close()
            assert process.wait() == 0
            watchdog.cancel()

    def test_a_reader_that_goes_away_is_no_fault(self, classifier, tmp_path):
        (tmp_path / "in.txt").write_text("the ferry leaves\n" * 20_000)
        arguments, environment = command("classify", classifier, "-i", tmp_path / "in.txt")
        with subprocess.Popen(
            arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert b"label" in process.stdout.readline()
            process.stdout.close()
            said = process.stderr.read().decode()
            process.wait()
        assert "Traceback" not in said
        assert "Broken" not in said

    def test_chunks_are_bounded_and_lose_nothing(self):
        lines = [f"line {number} {'x' * (number % 300)}".encode() for number in range(5000)]
        chunks = list(_chunks(io.BufferedReader(io.BytesIO(b"\n".join(lines)))))
        assert [line for chunk in chunks for line in chunk] == lines
        assert max(map(len, chunks)) <= 512

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b"", []),
            (b"\n", [b""]),
            (b"a", [b"a"]),
            (b"a\n", [b"a"]),
            (b"a\n\nb", [b"a", b"", b"b"]),
            (b"x" * 200_000 + b"\ny", [b"x" * 200_000, b"y"]),
        ],
    )
    def test_line_ends(self, data, expected):
        found = [line for chunk in _chunks(io.BytesIO(data)) for line in chunk]
        assert found == expected

    def test_only_the_faulty_line_fails(self):
        asked = []

        def work(items):
            asked.append(items)
            if "bad" in items or items == "bad":
                raise InputError("it is bad.")
            return [item.upper() for item in items] if isinstance(items, list) else items.upper()

        worker = LineWorker(lambda _first: str.strip, work, silent, "working")
        lines = ["a", "b", "bad", "d", "e", "f", "g", "h"]
        stream = io.BytesIO("\n".join([*lines, ""]).encode())
        found = [line for chunk in worker.run(stream) for line in chunk]
        assert [line.result for line in found] == ["A", "B", None, "D", "E", "F", "G", "H"]
        assert [line.error for line in found if line.error] == ["it is bad."]
        assert (worker.lines, worker.failed) == (8, 1)
        assert len(asked) == 7  # halves, and not one by one

    def test_progress_counts_lines(self):
        seen = []
        worker = LineWorker(
            lambda _first: str, lambda items: items, lambda *step: seen.append(step), "working"
        )
        list(worker.run(io.BytesIO(b"a\n" * 600)))
        assert seen == [("working", 512, 0), ("working", 600, 0)]

    def test_auto_format(self):
        def kind(first: str, pairs: bool = True) -> str:
            return text_parser("auto", first, pairs=pairs).__name__

        assert kind("a text") == kind("{not json}") == kind("[1]") == kind("a\tb\tc") == kind("")
        assert kind("a\tb") != kind("a text") == kind("a\tb", pairs=False)
        assert kind('{"text": "a\\tb"}') == kind('{"text": "a"}', pairs=False) != kind("a text")


class TestNpyFile:
    @pytest.mark.parametrize("rows", [0, 1, 7, 12345])
    def test_is_what_numpy_reads(self, tmp_path, rows):
        path = tmp_path / "a.npy"
        values = np.random.default_rng(0).standard_normal((rows, 3)).astype(np.float32)
        with NpyFile(path, 3) as file:
            for start in range(0, rows, 1000):
                file.write(list(values[start : start + 1000]))
        assert np.array_equal(np.load(path, allow_pickle=False), values)
        assert np.load(path, mmap_mode="r").shape == (rows, 3)

    def test_a_failure_leaves_what_was_there(self, tmp_path):
        path = tmp_path / "a.npy"
        path.write_bytes(b"old")

        def fail() -> None:
            with NpyFile(path, 3, force=True) as file:
                file.write([np.zeros(3, np.float32)])
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_refusals(self, tmp_path):
        with pytest.raises(OutputError, match="is a folder"):
            NpyFile(tmp_path, 3)
        with pytest.raises(OutputError, match="cannot be written"):
            NpyFile(tmp_path / "no" / "a.npy", 3)

    def test_full_disk(self, tmp_path):
        if not Path("/dev/full").exists():
            pytest.skip("no /dev/full")
        path = tmp_path / "a.npy"

        def fill() -> None:
            with NpyFile(path, 1000) as file, open("/dev/full", "wb") as full:
                os.dup2(full.fileno(), file._file.fileno())
                file.write([np.zeros(1000, np.float32)] * 100)

        with pytest.raises(OutputError, match="No space left"):
            fill()
        assert list(tmp_path.iterdir()) == []


class TestTag:
    @pytest.mark.parametrize("aggregation", ["simple", "max", "none"])
    def test_lines(self, tagger, aggregation):
        lines = [*SENTENCES[:3], "a\ttab"]
        done = invoke("tag", tagger, "--aggregation", aggregation, lines="\n".join(lines))
        assert done.exit_code == 0
        joined = None if aggregation == "none" else aggregation
        key = "entities" if joined else "tokens"
        assert results(done) == [
            {key: found} for found in load(tagger).tag(lines, aggregation=joined)
        ]

    def test_wrong_head(self, encoder):
        done = invoke("tag", encoder, lines="a")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "cannot tag: it can embed" in done.stderr


class TestFill:
    def test_lines(self, tiny_bert):
        folder = tiny_bert("masked-lm")
        lines = ["the old [MASK] crossed", "no mask", "[MASK] is first"]
        done = invoke("fill", folder, "--top-k", 2, lines="\n".join(lines))
        assert done.exit_code == 1
        first, second, third = results(done)
        model = load(folder)
        assert first == {"tokens": model.fill(lines[0], top_k=2)}
        assert third == {"tokens": model.fill(lines[2], top_k=2)}
        assert second == {"line": 2, "error": "the text must have exactly one [MASK], not 0."}


class TestRerank:
    @pytest.fixture(scope="class")
    def ranker(self, tiny_bert) -> Path:
        return tiny_bert("sequence-classification", num_labels=1)

    def test_lines_in_order_of_relevance(self, ranker):
        lines = [SENTENCES[0], "", SENTENCES[1], SENTENCES[2] + "\r"]
        done = invoke("rerank", ranker, "--query", "the bridge", lines="\n".join(lines))
        assert done.exit_code == 0
        expected = load(ranker).rerank("the bridge", list(SENTENCES[:3]))
        numbers = [1, 3, 4]
        assert results(done) == [
            {"line": numbers[each["index"]], "score": each["score"], "text": each["text"]}
            for each in expected
        ]
        done = invoke("rerank", ranker, "-q", "the bridge", "--top-k", 1, lines="\n".join(lines))
        assert len(results(done)) == 1

    def test_bad_input(self, ranker, tmp_path):
        assert "no lines to sort" in invoke("rerank", ranker, "-q", "a", lines="\n \n").stderr
        done = invoke("rerank", ranker, "-q", "a", lines='{"text": "b"}\n{"txt": "c"}')
        assert (done.exit_code, done.stdout) == (1, "")
        assert 'line 2: the line\'s JSON has no "text"' in done.stderr
        (tmp_path / "latin").write_bytes(b"a\nb\xe9\n")
        done = invoke("rerank", ranker, "-q", "a", "-i", tmp_path / "latin")
        assert "line 2 is not UTF-8" in done.stderr
        done = invoke(
            "rerank", ranker, "-q", "a", lines='{"text": "b"}\n{"text": "b", "text_pair": "c"}'
        )
        assert (done.exit_code, done.stdout) == (1, "")
        assert "line 2: a document is a single text" in done.stderr


@pytest.mark.parametrize("command", ["tag", "rerank"])
def test_pairs_are_no_format_of_single_texts(command):
    done = invoke(command, "--help")
    assert "tsv" not in done.stdout
    assert "pair" not in done.stdout


@pytest.mark.parametrize(
    ("command", "head", "line"),
    [
        (["classify"], "sequence-classification", "a"),
        (["embed"], None, "a"),
        (["fill"], "masked-lm", "a [MASK]"),
        (["rerank", "-q", "a"], "sequence-classification", "a"),
        (["tag"], "token-classification", "a"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_compute_is_honoured(tiny_bert, tmp_path, command, head, line):
    """An int8 model cannot compute in bf16, and every command that takes the option says so."""
    folder = tiny_bert(*([head] if head else []))
    pack(folder, tmp_path / "packed", dtype="int8")
    name, *options = command
    done = invoke(name, tmp_path / "packed", *options, "--compute", "bf16", lines=line)
    assert done.exit_code == 1
    assert "bf16" in done.stderr
