"""Jobs and seeds on Ray: the same output as here, actors that die, work that goes on.

Starting Ray takes seconds, so one small cluster serves all of them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ray = pytest.importorskip("ray")
pa = pytest.importorskip("pyarrow")
pytest.importorskip("ray.data")
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from typer.testing import CliRunner

import sparsebert.scale.ray_cluster as ray_module
from sentences import SENTENCES
from short_runs import assert_same_bits
from sparsebert.cli.app import app
from sparsebert.errors import ClusterError
from sparsebert.progress import silent
from sparsebert.scale import embed_files, ray_executor
from sparsebert.scale.parts import Part
from sparsebert.scale.ray_cluster import cluster_cores, machine_cores, ray_cluster, room_for
from tiny_models import TinyBert
from tiny_tasks import write_classification

TEXTS = [f"{SENTENCES[row % len(SENTENCES)]} {row}" for row in range(60)]


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Two cores of this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        "local",
        num_cpus=2,
        object_store_memory=80 << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("documents") / "in.parquet"
    pq.write_table(pa.table({"id": range(60), "text": TEXTS}), path, row_group_size=16)
    return path


def output(folder: Path) -> pa.Table:
    return ds.dataset(folder, format="parquet").to_table()


class TestFiles:
    @pytest.mark.thorough
    def test_actors_give_what_one_process_gives_though_one_dies(
        self,
        tiny_bert: TinyBert,
        documents: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        embed_files(tiny_bert(), documents, tmp_path / "here", rows_per_file=6)
        killed = []
        on_ray = ray_module.on_ray

        def kill_one(*arguments: Any) -> Iterator[Any]:
            for report in on_ray(*arguments):
                if not killed:
                    os.kill(report.process, signal.SIGKILL)
                    killed.append(report.process)
                yield report

        monkeypatch.setattr(ray_module, "on_ray", kill_one)
        # Parts may take long: Ray Data by itself ends what has not moved for half an hour.
        context = ray.data.DataContext.get_current()
        monkeypatch.setattr(context, "execution_no_progress_timeout_s", 0.01)
        out = tmp_path / "out"
        result = embed_files(tiny_bert(), documents, out, rows_per_file=6, engine="ray", actors=2)
        assert killed
        assert (result.rows, result.rows_done, result.files, result.threads) == (60, 60, 10, 1)
        assert result.workers >= 2
        assert output(out).equals(output(tmp_path / "here"))
        assert not [path.name for path in out.iterdir() if path.name.startswith(".")]

        # Begun again, on the command line, where only two parts are missing.
        (out / "part-000003.parquet").unlink()
        (out / "part-000007.parquet").unlink()
        asked = ["embed", tiny_bert(), "-i", documents, "-o", out, "--rows-per-file", 6]
        asked += ["--engine", "ray", "--actors", "1:2", "--json"]
        done = CliRunner().invoke(app, [str(argument) for argument in asked])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["rows_done"] == 12
        assert output(out).equals(output(tmp_path / "here"))

    def test_an_error_on_a_machine_ends_the_job(
        self, tiny_bert: TinyBert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = tmp_path / "in.jsonl"
        rows = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:12])
        source.write_text(rows)
        on_ray = ray_module.on_ray

        def change(*arguments: Any) -> Iterator[Any]:
            source.write_text(rows.replace(TEXTS[0], "{"))
            yield from on_ray(*arguments)

        monkeypatch.setattr(ray_module, "on_ray", change)
        with pytest.raises(ClusterError, match=r"on machine .*: in.jsonl"):
            embed_files(tiny_bert(), source, tmp_path / "out", engine="ray", actors=1)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["_sparsebert.json"]

    def test_an_error_of_ours_is_told_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any) -> None:
            raise ZeroDivisionError("nobody thought of this")

        monkeypatch.setattr(ray_module.Worker, "do", fail)
        monkeypatch.setenv("RAYON_NUM_THREADS", "")
        actor: Any = ray_module._Actor(SimpleNamespace(threads=1, inputs=None, schema=None))
        told = actor({name: [value] for name, value in asdict(Part(3, 0, 0, 5, 5)).items()})
        assert (told["part"], told["rows"]) == ([3], [0])
        assert told["error"] == ["ZeroDivisionError: nobody thought of this"]

    def test_wrong_pools(self, tiny_bert: TinyBert, documents: Path, tmp_path: Path) -> None:
        for actors in (0, (3, 2)):
            with pytest.raises(ClusterError, match="actors must be"):
                embed_files(tiny_bert(), documents, tmp_path / "out", engine="ray", actors=actors)
        with pytest.raises(ClusterError, match=r"no machine .* has 3 cores .*largest has 2\)"):
            embed_files(tiny_bert(), documents, tmp_path / "out", engine="ray", threads=3)


class TestSeeds:
    @pytest.mark.thorough
    def test_they_come_to_what_they_come_to_one_by_one(
        self, tiny_bert: TinyBert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("transformers")
        from sparsebert.evaluation.seeds import evaluate_seeds
        from sparsebert.pruning import prune
        from sparsebert.training.seeds import finetune_seeds

        sparse = tmp_path / "sparse"
        prune(tiny_bert("encoder"), sparse)
        write_classification(tmp_path / "data", train=32)
        # Tasks stand elsewhere; a folder that is called as an option's value is not meant by it.
        monkeypatch.chdir(tmp_path)
        Path("custom").mkdir()
        data = Path("data")
        quick = {"task": "custom", "epochs": 1, "learning_rate": 1e-3, "batch_size": 16}
        here, there = tmp_path / "here", tmp_path / "there"
        one = finetune_seeds(sparse, here, data=data, seeds=(1, 2, 3), **quick)
        finetune_seeds(sparse, there, data=data, seeds=(2,), **quick)
        before = (there / "seed-2/model.safetensors").stat().st_mtime_ns
        told: list[tuple[str, int, int]] = []
        executor = ray_executor(threads=1)
        several = finetune_seeds(
            sparse,
            there,
            data=data,
            seeds=(1, 2, 3),
            executor=executor,
            progress=lambda *each: told.append(each),
            **quick,
        )
        assert several == one
        assert told == [("seeds", done, 2) for done in range(3)]
        assert (there / "seed-2/model.safetensors").stat().st_mtime_ns == before
        for seed in (1, 3):
            assert_same_bits(here / f"seed-{seed}", there / f"seed-{seed}")

        scores = evaluate_seeds(there, task="custom", data=data, executor=executor)
        assert scores == evaluate_seeds(here, task="custom", data=data)
        assert list(scores.seeds) == [1, 2, 3]
        with pytest.raises(ClusterError, match=r"seed \d: .*holds no file"):
            evaluate_seeds(there, task="custom", data=tmp_path / "sparse", executor=executor)


class TestCluster:
    def test_cores(self) -> None:
        assert (cluster_cores(), machine_cores()) == (2, 2)
        assert [room_for(threads) for threads in (1, 2, 3)] == [2, 1, 0]

    def test_seeds_that_no_machine_has_room_for(self) -> None:
        with pytest.raises(ClusterError, match=r"no machine .* has 3 cores for a seed"):
            list(ray_executor(threads=3)(print, {1: {}}, silent))

    def test_one_that_cannot_be_reached(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def init(address: str, **_: Any) -> None:
            asked.append(address)
            raise ConnectionError("no route to host")

        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setattr(ray, "init", init)
        with socket.create_server(("127.0.0.1", 0)) as server:
            there = f"127.0.0.1:{server.getsockname()[1]}"
            for address in (there, None):
                monkeypatch.setenv("RAY_ADDRESS", f"ray://{there}")
                with pytest.raises(ClusterError, match="cannot be reached: no route"):
                    ray_cluster(address).__enter__()
        with pytest.raises(ClusterError, match=f"{there} cannot be reached: .*refused"):
            ray_cluster(there).__enter__()
        monkeypatch.delenv("RAY_ADDRESS")
        with pytest.raises(ClusterError, match="on this machine cannot be reached"):
            ray_cluster().__enter__()
        with pytest.raises(ClusterError, match="cluster local cannot be reached"):
            ray_cluster("local").__enter__()
        assert asked == [there, f"ray://{there}", "auto", "local", "local"]
