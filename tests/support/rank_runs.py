"""What `test_ranks` starts in two processes: several runs one after the other, each told apart.

torchrun --nproc-per-node 2 tests/support/rank_runs.py FOLDER
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ["SPARSEBERT_CACHE"] = str(Path(sys.argv[1]) / "cache")

import torch

import sparsebert.training.run as run
from short_runs import interrupt_at
from sparsebert.cli import main
from sparsebert.errors import SparsebertError
from sparsebert.training import finetune, prune_upstream
from sparsebert.training.distributed import local_tensor, rank

FOLDER = Path(sys.argv[1])
OPTIONS = json.loads((FOLDER / "options.json").read_text())
ACCUMULATED, WHOLE, GRADUAL, UPSTREAM = OPTIONS


def plain_runs(told: dict[str, Any]) -> None:
    result = finetune(FOLDER / "sparse", FOLDER / "two", **ACCUMULATED)
    told["result"] = result.as_dict()
    try:
        stopped(FOLDER / "resumed", ACCUMULATED)
    except KeyboardInterrupt as stop:
        told["stop"] = str(stop)
    again = finetune(FOLDER / "sparse", FOLDER / "resumed", resume=True, **ACCUMULATED)
    told["resumed_from"] = again.resumed_from
    finetune(FOLDER / "dense", FOLDER / "gradual", **GRADUAL)
    prune_upstream(FOLDER / "masked-lm", FOLDER / "upstream", **UPSTREAM)
    told["command"] = command()
    try:
        finetune(FOLDER / "sparse", FOLDER / "two", **ACCUMULATED)
    except SparsebertError as error:
        told["error"] = str(error)
    except SystemExit as end:
        told["end"] = end.code


def sharded_runs(told: dict[str, Any]) -> None:
    finetune(FOLDER / "sparse", FOLDER / "sharded", **WHOLE)
    with contextlib.suppress(KeyboardInterrupt):
        stopped(FOLDER / "sharded-resumed", WHOLE)
    again = finetune(FOLDER / "sparse", FOLDER / "sharded-resumed", resume=True, **WHOLE)
    told["sharded_resumed_from"] = again.resumed_from
    told["refused"] = []
    for options in ({"embeddings": "used"}, {"method": "gradual"}, {"early_stopping": 1}):
        try:
            finetune(FOLDER / "dense", FOLDER / "refused", **WHOLE, **options)
        except SparsebertError as error:
            told["refused"].append(str(error))


def stopped(out: Path, options: dict[str, Any]) -> None:
    """Interrupted at step 11, in the second epoch, in the main process alone."""
    finetune(FOLDER / "sparse", out, progress=interrupt_at(11), **options)


def command() -> dict[str, Any]:
    """What the command line prints, scored after each epoch."""
    arguments = ["finetune", FOLDER / "sparse", FOLDER / "command", "--task", "custom"]
    arguments += ["--data", FOLDER / "data", "--epochs", 2, "--early-stopping", 5, "--json"]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(each) for each in arguments])
        except SystemExit as end:
            return {"code": end.code, "stdout": out.getvalue(), "stderr": err.getvalue()}


def note_weights(told: dict[str, Any]) -> None:
    """Keep a digest of what each process has after each training."""
    told["digests"] = []

    def noting(train: Any) -> Any:
        def call(trainer: Any, *arguments: Any) -> Any:
            found = train(trainer, *arguments)
            digest = hashlib.sha256()
            for each in trainer.model.parameters():
                digest.update(local_tensor(each.detach()).contiguous().numpy().tobytes())
            told["digests"].append(digest.hexdigest())
            return found

        return call

    run.train = noting(run.train)


def shard_on_cpu() -> None:
    """accelerate shards models on accelerators only: let it take these processes for such."""
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    make = AcceleratorState.__init__

    def init(self: AcceleratorState, *arguments: Any, **named: Any) -> None:
        make(self, *arguments, **named)
        shared = AcceleratorState._shared_state
        shared["distributed_type"] = DistributedType.FSDP
        if "fsdp_plugin" not in shared:
            shared["fsdp_plugin"] = FullyShardedDataParallelPlugin(
                fsdp_version=2, auto_wrap_policy="transformer_based_wrap"
            )

    AcceleratorState.__init__ = init


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    told: dict[str, Any] = {}
    note_weights(told)
    plain_runs(told)
    shard_on_cpu()
    sharded_runs(told)
    (FOLDER / f"told-{rank()}.json").write_text(json.dumps(told))
