"""Peak memory of training and inference, and the largest batch that fits.

Training a model of P parameters, T of them trainable and M in masked layers, on batches of B
examples of n tokens takes, in bytes:

    weights       8 P          the memory-mapped checkpoint, read in full, and a copy of it
    gradients     4 T
    optimiser     8 T          AdamW's two moments; SGD has one, Adafactor almost none
    masks         5 M          the mask, and the same as integers as wide as a weight
    bf16 copies   2 P          when training in bf16
    activations   B n L a      what autograd saves for the backward pass, see below

As measured, the libraries add 0.5 GB, and temporaries of the backward pass and the allocator's
cache add three tenths of the activations. The sum was within 5 % of the peak resident memory at the
shapes in docs/troubleshooting.md.

Activations per token and layer, for hidden size H, intermediate size I, h heads and L layers:

    fp32      a = 32 H + 8 I + 4 h n         without dropout; no last term if n > 256
              a = 40 H + 8 I + 12 h n        with dropout
    bf16      a = 24 H + 4 I + 2 h n         without dropout; no last term if n > 256
              a = 28 H + 4 I + 6 h n         with dropout
              a = 34 H + 4 I + 12 h n        with dropout and n > 256

Attention is eager rather than fused up to 256 tokens (`sparsebert.training.cpu`), and at any length
where scores depend on relative positions, as in MPNet and DeBERTa. A gated feed-forward
(ModernBERT) saves at least twice the intermediate vectors, and fused attention in a window also
saves its mask of n numbers per token. Where embeddings are projected (ELECTRA, ALBERT), bf16
training keeps the residual stream in bf16, too. The terms were counted one by one with torch 2.13;
in DistilBERT, the H term is up to a tenth smaller.

Inference takes the weights as the engine stores them, and a workspace: the engine computes at most
1,024 tokens at a time (or one longer text), so memory does not grow with the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from sparsebert.checkpoint import Checkpoint, open_checkpoint
from sparsebert.checkpoint.config import EncoderConfig
from sparsebert.diagnosis.report import Check, Finding, Problem, Severity, plural
from sparsebert.diagnosis.system import AvailableMemory
from sparsebert.engine import default_threads
from sparsebert.packing import is_packed, open_packed, parts_of
from sparsebert.training.defaults import LONGEST_PLAIN
from sparsebert.training.options import OPTIMIZER_STATES

GROUP = "memory"
_LIBRARIES = 500 << 20  # Python with torch, transformers, scikit-learn and pyarrow, measured
_ENGINE = 50 << 20  # Python with numpy, tokenizers and the engine, measured
_SLACK = 1.3  # times the activations, measured: gradients in flight, and the allocator's cache
_FLOAT = 4  # bytes
_ENGINE_TOKENS = 1024
_BLOCK_TOKENS = 96
_Table = dict[tuple[str, bool, bool], tuple[float, float, float]]

# Bytes per feature of a token's hidden state, per feature of its intermediate state and per
# attention probability, by (precision, dropout, eager attention).
_PLAIN_FEED_FORWARD: _Table = {
    ("fp32", False, False): (32, 8, 0),
    ("fp32", False, True): (32, 8, 4),
    ("fp32", True, False): (40, 8, 12),
    ("fp32", True, True): (40, 8, 12),
    ("bf16", False, False): (24, 4, 0),
    ("bf16", False, True): (24, 4, 2),
    ("bf16", True, False): (34, 4, 12),
    ("bf16", True, True): (28, 4, 6),
}
_GATED_POST_NORM: _Table = {
    ("fp32", False, False): (32, 16, 0),
    ("fp32", False, True): (32, 16, 4),
    ("fp32", True, False): (40, 20, 12),
    ("fp32", True, True): (40, 20, 12),
    ("bf16", False, False): (26, 8, 0),
    ("bf16", False, True): (26, 8, 2),
    ("bf16", True, False): (36, 10, 12),
    ("bf16", True, True): (30, 10, 6),
}
_GATED_PRE_NORM: _Table = {
    ("fp32", False, False): (40, 16, 0),
    ("fp32", False, True): (32, 16, 4),
    ("fp32", True, False): (36, 20, 12),
    ("fp32", True, True): (36, 20, 12),
    ("bf16", False, False): (24, 8, 0),
    ("bf16", False, True): (20, 8, 6),
    ("bf16", True, False): (28, 10, 12),
    ("bf16", True, True): (22, 10, 8),
}
# The same, and bytes per pair of tokens and per feature of the distance embeddings in an example.
_DISENTANGLED = {  # always eager
    ("fp32", False): (40, 9.4, 5, 5, 6),
    ("fp32", True): (49, 9.4, 13, 5, 7),
    ("bf16", False): (29, 4.4, 2.4, 7, 3),
    ("bf16", True): (34, 4.4, 6.4, 7, 4),
}
_BYTES = {"fp32": 4, "bf16": 2}

TRAINING_MEMORY = Problem(
    "training-memory",
    Severity.WARNING,
    "run `finetune` with a smaller --batch-size (and more --gradient-accumulation, to train on as "
    "many rows in each step), a smaller --max-length, or --dropout 0. (It halves the batch by "
    "itself when memory runs out, at the cost of a failed attempt.)",
)
NO_ROW_FITS = Problem(
    "training-memory-one-row",
    Severity.ERROR,
    "train on a machine with more memory, close other programs, or use a smaller --max-length.",
)
ANSWERING_MEMORY = Problem(
    "answering-memory",
    Severity.ERROR,
    "pack the model (`sparsebert pack MODEL OUT --dtype int8`), close other programs, or use a "
    "machine with more memory.",
)


@dataclass(frozen=True)
class Plan:
    """The training whose memory is estimated, with the option names of `finetune`.

    ``dropout`` says whether any rate is above 0, ``precision`` is "fp32" or "bf16".
    """

    batch_size: int
    max_length: int
    dropout: bool
    optimizer: str = "adamw"
    embeddings: str = "train"
    precision: str = "fp32"


def training_bytes(checkpoint: Checkpoint, plan: Plan) -> tuple[int, int]:
    """Bytes that training takes for any batch, and bytes that each example adds."""
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
    fixed += (1 + OPTIMIZER_STATES.get(plan.optimizer, 2)) * _FLOAT * training
    if plan.precision == "bf16":
        fixed += 2 * parameters
    row = activation_bytes(
        config, 1, plan.max_length, dropout=plan.dropout, precision=plan.precision
    )
    return fixed, round(_SLACK * row)


def activation_bytes(
    config: EncoderConfig, examples: int, tokens: int, *, dropout: bool, precision: str = "fp32"
) -> int:
    """Bytes that autograd saves for the backward pass of a batch ``[examples, tokens]``.

    Encoder layers only, with the attention that `finetune` chooses for this length on a CPU.
    ``precision`` is "fp32" or "bf16".
    """
    family = config.family
    eager = tokens <= LONGEST_PLAIN or family.relative_bias or family.disentangled
    table = _PLAIN_FEED_FORWARD
    if family.gated:
        table = _GATED_PRE_NORM if family.norm_first else _GATED_POST_NORM
    hidden, inner, pairs = table[precision, dropout, eager]
    per_example = 0.0
    if config.disentangled:
        hidden, inner, pairs, plain, rows = _DISENTANGLED[precision, dropout]
        per_example = plain * tokens**2 + rows * config.disentangled.rows * config.hidden_size
    if precision == "bf16" and config.projects:
        hidden -= 8
    per_token = hidden * config.hidden_size + inner * config.intermediate_size
    per_token += pairs * config.num_attention_heads * tokens
    saved = config.num_hidden_layers * (per_token + per_example / tokens)
    if not eager and not dropout:
        windows = sum(layer.window is not None for layer in config.attention)
        saved += windows * _BYTES[precision] * tokens
    return round(examples * tokens * saved)


def answering_bytes(folder: Path, threads: int) -> tuple[int, int]:
    """Bytes of the engine's weights, and of its workspace for 1,024 tokens."""
    if is_packed(folder):
        packed = open_packed(folder)
        config = packed.config
        weights = sum(
            part.nbytes for weight in packed.weights.values() for part in parts_of(weight).values()
        )
    else:
        checkpoint = open_checkpoint(folder)
        config = checkpoint.config
        # The mapped file is read in full, and a compressed copy is kept of its pruned layers.
        shapes = {layer.name: layer for layer in checkpoint.linear_layers(("encoder", "pooler"))}
        weights = checkpoint.tensors.nbytes + sum(
            _FLOAT * shapes[name].rows * shapes[name].columns * 17 // 32
            for name in config.recorded_layers
            if name in shapes
        )
    tokens = max(_ENGINE_TOKENS, config.max_length)
    inner = (2 if config.family.gated else 1) * config.intermediate_size
    floats = 6 * config.hidden_size * tokens + inner * max(tokens, _BLOCK_TOKENS * threads)
    # Per thread: one head's queries, keys, values and context, and its scores.
    head = config.hidden_size // config.num_attention_heads
    floats += threads * config.max_length * (4 * head + _BLOCK_TOKENS)
    return weights, _FLOAT * floats


def check_memory(folder: Path, plan: Plan, memory: AvailableMemory | None) -> Iterator[Check]:
    """Whether training and inference fit into the available memory."""
    if memory is None:
        yield Check.skip(GROUP, "available", "this system does not say how much memory is free")
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
        f"about {_gb(need)} at its peak for {shape}: {_gb(fixed)} for any batch, and "
        f"{row / 1e6:,.0f} MB per row"
    )
    if memory is None:
        return Check.of(GROUP, "training", seen, [])
    most = (memory.free - fixed) // row
    seen += f"; {plural(max(most, 0), 'row')} would fit"
    finding: Finding | None = None
    if most < 1:
        finding = NO_ROW_FITS.at(
            folder,
            f"training takes about {_gb(fixed + row)} even with a single row of {plan.max_length} "
            f"tokens, but only {_gb(memory.free)} is free.",
        )
    elif most < plan.batch_size:
        finding = TRAINING_MEMORY.at(
            folder,
            f"training takes about {_gb(need)} for {shape}, but only {_gb(memory.free)} is free: "
            f"at most {plural(most, 'row')} of {plan.max_length} tokens fit at once.",
        )
    return Check.of(GROUP, "training", seen, [finding])


def _answering(folder: Path, memory: AvailableMemory | None) -> Check:
    threads = default_threads()
    weights, workspace = answering_bytes(folder, threads)
    need = _ENGINE + weights + workspace
    seen = (
        f"about {need / 1e6:,.0f} MB at its peak with any batch on {plural(threads, 'thread')}: "
        f"{weights / 1e6:,.0f} MB of weights, {workspace / 1e6:,.0f} MB of workspace"
    )
    finding = None
    if memory is not None and memory.free < need:
        finding = ANSWERING_MEMORY.at(
            folder, f"the engine takes about {_gb(need)}, but only {_gb(memory.free)} is free."
        )
    return Check.of(GROUP, "answering", seen, [finding])


def _gb(count: int) -> str:
    return f"{count / 1e9:,.2f} GB"
