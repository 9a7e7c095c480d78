"""Memory: what training and answering take at their peak, and the batch that fits.

Training, of a model with P parameters of which T train, M of them in masked layers, B rows of n
tokens at a time, in bytes:

    weights       8 P          the checkpoint's own file is mapped and read through, beside its copy
    gradients     4 T
    optimiser     8 T          AdamW's two moments; SGD one, Adafactor next to none
    locks         5 M          the mask, and it again as bits of a weight's width
    bf16 copies   2 P          in that precision
    activations                see `sparsebert.diagnosis.activations`

to which the libraries add 0.5 GB. Besides, the backward pass needs room of its own and the
allocator keeps some of what is freed: three tenths of the activations, as measured. The sum was
then within 7 % of the peak resident memory at the shapes in docs/troubleshooting.md.

Answering: the weights as the engine keeps them, and its workspace. The engine works on at most
1,024 tokens at a time (or one longer text), so memory does not grow with the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from sparsebert.checkpoint import Checkpoint, open_checkpoint
from sparsebert.diagnosis.activations import activation_bytes
from sparsebert.diagnosis.available_memory import AvailableMemory
from sparsebert.diagnosis.finding import Check, Finding, Kind, Severity, plural
from sparsebert.engine import default_threads
from sparsebert.packing import is_packed, open_packed, parts_of

GROUP = "memory"
_LIBRARIES = 500 << 20  # Python with torch, transformers, scikit-learn and pyarrow, measured
_ENGINE = 50 << 20  # Python with numpy, tokenizers and the engine, measured
_SLACK = 1.3  # of activations, measured: gradients on their way, and what the allocator keeps
_FLOAT = 4  # bytes
_ENGINE_TOKENS = 1024
_BLOCK_TOKENS = 96

_STATES = {"adamw": 2, "sgd": 1, "adafactor": 0}  # floats a parameter

TRAINING_MEMORY = Kind(
    "training-memory",
    Severity.WARNING,
    "give `finetune` a smaller --batch-size with --gradient-accumulation (it halves the batch by "
    "itself when memory runs out, at the cost of a failed attempt), a smaller --max-length, or "
    "--dropout 0.",
)
NO_ROW_FITS = Kind(
    "training-memory-one-row",
    Severity.ERROR,
    "train on a machine with more memory, close other programs, or give a smaller --max-length.",
)
ANSWERING_MEMORY = Kind(
    "answering-memory",
    Severity.ERROR,
    "pack the model (`sparsebert pack MODEL OUT --dtype int8`), close other programs, or take a "
    "machine with more memory.",
)


@dataclass(frozen=True)
class Plan:
    """The training whose memory is asked for, under `finetune`'s own names.

    ``dropout`` says whether any rate is above 0, ``precision`` is "fp32" or "bf16".
    """

    batch_size: int
    max_length: int
    dropout: bool
    optimizer: str = "adamw"
    embeddings: str = "train"
    precision: str = "fp32"


def training_bytes(checkpoint: Checkpoint, plan: Plan) -> tuple[int, int]:
    """What training takes whatever the batch, and what each row adds to it, in bytes."""
    config = checkpoint.config
    shapes = {
        name: checkpoint.tensors.spec(checkpoint.stored_name[name]).shape
        for name in checkpoint.used
    }
    parameters = sum(prod(shape) for shape in shapes.values())
    training = parameters
    if plan.embeddings == "frozen":
        training -= prod(shapes["embeddings.word_embeddings.weight"])
    masked = sum(prod(shapes[name]) for name in config.recorded_layers if name in shapes)
    fixed = _LIBRARIES + 2 * _FLOAT * parameters + 5 * masked
    fixed += (1 + _STATES.get(plan.optimizer, 2)) * _FLOAT * training
    if plan.precision == "bf16":
        fixed += 2 * parameters
    row = activation_bytes(
        config, 1, plan.max_length, dropout=plan.dropout, precision=plan.precision
    )
    return fixed, round(_SLACK * row)


def answering_bytes(folder: Path, threads: int) -> tuple[int, int]:
    """What the engine's weights take, and its workspace for 1,024 tokens, in bytes."""
    if is_packed(folder):
        packed = open_packed(folder)
        config = packed.config
        weights = sum(
            part.nbytes for weight in packed.weights.values() for part in parts_of(weight).values()
        )
    else:
        checkpoint = open_checkpoint(folder)
        config = checkpoint.config
        # The mapped file is read through, and its pruned layers are kept once more, compressed.
        shapes = {layer.name: layer for layer in checkpoint.linear_layers(("encoder", "pooler"))}
        weights = checkpoint.tensors.nbytes + sum(
            _FLOAT * shapes[name].rows * shapes[name].columns * 17 // 32
            for name in config.recorded_layers
            if name in shapes
        )
    tokens = max(_ENGINE_TOKENS, config.max_length)
    inner = (2 if config.family.gated else 1) * config.intermediate_size
    floats = 6 * config.hidden_size * tokens + inner * max(tokens, _BLOCK_TOKENS * threads)
    # Of each thread: one head's queries, keys, values and context, and its scores.
    head = config.hidden_size // config.num_attention_heads
    floats += threads * config.max_length * (4 * head + _BLOCK_TOKENS)
    return weights, _FLOAT * floats


def check_memory(folder: Path, plan: Plan, memory: AvailableMemory | None) -> Iterator[Check]:
    """Whether training and answering fit into the memory there is."""
    if memory is None:
        yield Check.skip(GROUP, "available", "this system does not tell how much memory is free")
    else:
        seen = f"{_gb(memory.free)} free of the {memory.limit}'s {_gb(memory.total)}"
        yield Check.of(GROUP, "available", seen, [])
    if not is_packed(folder):
        yield _training(folder, plan, memory)
    yield _answering(folder, memory)


def _training(folder: Path, plan: Plan, memory: AvailableMemory | None) -> Check:
    fixed, row = training_bytes(open_checkpoint(folder), plan)
    need = fixed + plan.batch_size * row
    shape = (
        f"batches of {plan.batch_size} x {plan.max_length} tokens "
        f"{'with' if plan.dropout else 'without'} dropout in {plan.precision}"
    )
    seen = (
        f"about {_gb(need)} at its peak for {shape}: {_gb(fixed)} whatever the batch, and "
        f"{row / 1e6:,.0f} MB a row"
    )
    if memory is None:
        return Check.of(GROUP, "training", seen, [])
    most = (memory.free - fixed) // row
    seen += f"; {plural(max(most, 0), 'row')} would fit"
    finding: Finding | None = None
    if most < 1:
        finding = NO_ROW_FITS.at(
            folder,
            f"training takes about {_gb(fixed + row)} with a single row of {plan.max_length} "
            f"tokens, and {_gb(memory.free)} are free.",
        )
    elif most < plan.batch_size:
        finding = TRAINING_MEMORY.at(
            folder,
            f"training takes about {_gb(need)} for {shape}, and {_gb(memory.free)} are free: at "
            f"most {plural(most, 'row')} of {plan.max_length} tokens fit at once.",
        )
    return Check.of(GROUP, "training", seen, [finding])


def _answering(folder: Path, memory: AvailableMemory | None) -> Check:
    threads = default_threads()
    weights, workspace = answering_bytes(folder, threads)
    need = _ENGINE + weights + workspace
    seen = (
        f"about {need / 1e6:,.0f} MB at its peak with any batch on {plural(threads, 'thread')}: "
        f"{weights / 1e6:,.0f} MB of weights, {workspace / 1e6:,.0f} MB to work in"
    )
    finding = None
    if memory is not None and memory.free < need:
        finding = ANSWERING_MEMORY.at(
            folder, f"the engine takes about {_gb(need)}, and {_gb(memory.free)} are free."
        )
    return Check.of(GROUP, "answering", seen, [finding])


def _gb(count: int) -> str:
    return f"{count / 1e9:,.2f} GB"
