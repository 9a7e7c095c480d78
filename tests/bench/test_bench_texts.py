"""`sparsebert bench --texts`: batching texts for us and for peers, measuring them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sentences import SENTENCES
from sparsebert.bench import run_bench
from sparsebert.bench.workloads import Texts, text_workload, tokenise
from sparsebert.cli import main
from sparsebert.errors import InputError
from sparsebert.inference import load
from sparsebert.pruning import prune

OURS = "sparsebert-fp32"


@pytest.fixture(scope="module")
def sparse(tiny_bert: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts") / "sparse"
    prune(tiny_bert("sequence-classification"), folder)
    return folder


def written(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


def test_ids_are_those_the_model_itself_would_read(sparse: Path, tmp_path: Path) -> None:
    model = load(sparse, threads=1)
    ids = tokenise(SENTENCES, sparse, 64)
    assert (model.forward(ids) == model.logits(list(SENTENCES))).all()
    assert max(map(len, tokenise(SENTENCES, sparse, 9))) == 9
    write_modules(tmp_path / "embedder", sparse, max_seq_length=8)
    assert tokenise(SENTENCES, tmp_path / "embedder", 64) == tokenise(SENTENCES, sparse, 8)


def test_a_model_without_a_tokenizer(sparse: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tokenizer.json and no vocabulary.*--tokenizer"):
        tokenise(SENTENCES, tmp_path, 64)


def write_modules(folder: Path, model: Path, **settings: object) -> None:
    """A sentence-transformers folder of old, whose transformer is in a folder of its own."""
    shutil.copytree(model, folder / "0_Transformer")
    (folder / "0_Transformer/sentence_bert_config.json").write_text(json.dumps(settings))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}')
    kinds = {"0_Transformer": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"path": path, "type": f"sentence_transformers.models.{kind}"}
        for path, kind in kinds.items()
    ]
    (folder / "modules.json").write_text(json.dumps(modules))


def test_peers_get_their_texts_sorted_and_we_as_they_come(tmp_path: Path) -> None:
    sequences = [[1] * length for length in (5, 2, 9, 1, 7)]
    workload = text_workload(sequences, 2, 10, tmp_path)
    assert workload.shape == Texts(5, 24, 2)

    def lengths(ragged: bool) -> list[list[int]]:
        batches = json.loads(workload.file(ragged).read_text(encoding="utf-8"))
        return [[len(sequence) for sequence in batch] for batch in batches]

    assert lengths(ragged=True) == [[5, 2], [9, 1], [7]]
    assert lengths(ragged=False) == [[1, 2], [5, 7], [9]]


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="token id 10, but the model has 10 tokens"):
        text_workload([[1, 10]], 2, 10, tmp_path)


@pytest.mark.thorough
def test_measuring_texts(sparse: Path) -> None:
    pytest.importorskip("transformers")
    result = run_bench(
        sparse, shapes=[], texts=SENTENCES, batch=8, engines=[OURS, "torch"], threads=1, rounds=2
    )
    assert [engine.reason for engine in result.engines] == [None, None]
    tokens = sum(map(len, tokenise(SENTENCES, sparse, 64)))
    assert {row.shape for row in result.rows} == {Texts(len(SENTENCES), tokens, 8)}
    for row in result.rows:
        assert row.texts_per_second == pytest.approx(len(SENTENCES) / row.median_ms * 1000)


@pytest.mark.parametrize(("head", "together"), [("question-answering", True), ("encoder", False)])
def test_a_pair_is_one_text_for_models_that_read_pairs(
    tiny_bert: Callable[..., Path], head: str, together: bool
) -> None:
    transformers = pytest.importorskip("transformers")
    model = tiny_bert(head)
    pairs = [(SENTENCES[0], SENTENCES[1]), (SENTENCES[2], SENTENCES[3])]
    rows: list[tuple[str, ...]] = (
        [*pairs] if together else [(text,) for each in pairs for text in each]
    )
    read = transformers.AutoTokenizer.from_pretrained(model)
    tokens = sum(len(read(*row)["input_ids"]) for row in rows)
    result = run_bench(model, shapes=[], texts=pairs, batch=2, engines=[OURS], threads=1, rounds=1)
    assert [row.shape for row in result.rows] == [Texts(len(rows), tokens, 2)]


def test_the_command(sparse: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    texts = written(tmp_path / "texts.txt", "\n".join(SENTENCES))
    random = ["bench", "--random", "bert-tiny", "--texts", str(texts), "--engines", OURS]
    with pytest.raises(SystemExit) as end:
        main([*random, "--rounds", "1"])
    assert end.value.code == 1
    assert "--tokenizer" in capfd.readouterr().err
    with pytest.raises(SystemExit) as end:
        main([*random, "--rounds", "1", "--tokenizer", str(sparse), "--batch", "4", "-o", "json"])
    out, error = capfd.readouterr()
    assert end.value.code == 0, error
    assert [row["shape"] for row in json.loads(out)["rows"]] == [f"{len(SENTENCES)} texts by 4"]
