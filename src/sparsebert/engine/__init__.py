"""The native CPU engine: an encoder and its head on ragged batches, without torch.

A batch is its sequences laid end to end: ``ids`` and ``type_ids`` are int32 ``[tokens]``, and
sequence s is ``ids[offsets[s]:offsets[s + 1]]`` with ``offsets`` int32 ``[batch + 1]``. No padding
is computed, and a sequence's result does not depend on the rest of its batch: bit for bit in int8,
up to rounding (below 1e-6) in floating point.

Environment: ``SPARSEBERT_ISA`` (avx512-amx, avx512-vnni, avx512, avx2-vnni, avx2, sse4.1; on Arm
neon-i8mm, neon-dotprod, neon; or portable) forces an instruction set, ``SPARSEBERT_NUM_THREADS``
the number of threads, ``SPARSEBERT_INT8_KERNEL`` (blend, lookup, tiles or auto) the kernel for int8
layers: AVX2, AVX-512 and neon-dotprod have two for 1:2 weights (``blend``, and ``lookup`` by
tables), and avx512-amx also has ``tiles``, for all weights. All are read when an encoder is made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

import sparsebert._engine as _engine
from sparsebert.compressed import Compressed
from sparsebert.control_groups import cpu_limit
from sparsebert.errors import CheckpointError, EngineError, InputError
from sparsebert.quantized import Quantized

Weight = npt.NDArray[Any] | Compressed | Quantized
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]

_CONFIG_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
    "hidden_act",
    "embedding_size",
    "first_position",
    "relative_buckets",
    "task_types",
)
COMPUTE = ("bf16",)
"""What floating-point weights may be computed in, besides fp32."""
_FAMILY_FIELDS = (
    "norm_first",
    "fused_attention",
    "gated",
    "fused_gate",
    "query_key_norm",
    "residual_norm",
)
_BIASES = ("attention", "intermediate", "output", "norm")


class _Head(Protocol):
    @property
    def value(self) -> str: ...


class Configuration(Protocol):
    """The configuration fields that the engine reads; `checkpoint.EncoderConfig` has them all."""

    @property
    def family(self) -> Any: ...
    @property
    def head(self) -> _Head: ...
    @property
    def head_shape(self) -> Any: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def attention(self) -> Sequence[Any]: ...
    @property
    def layer_order(self) -> Sequence[int]: ...
    @property
    def slopes(self) -> Sequence[float]: ...
    @property
    def projects(self) -> bool: ...
    @property
    def biases(self) -> Sequence[str]: ...
    @property
    def token_types(self) -> int | None: ...
    @property
    def disentangled(self) -> Any: ...
    @property
    def position_table(self) -> bool: ...


def available_instruction_sets() -> list[str]:
    """Names of the instruction sets that both this CPU and this build support, best first."""
    return _engine.available_instruction_sets()


def instruction_set(name: str | None = None) -> str:
    """The set an encoder would use: ``name``, else ``SPARSEBERT_ISA``, else the best available.

    Raises EngineError for a name that is unknown, or not supported by this build or this CPU.
    """
    try:
        return _engine.select_instruction_set(name or "")
    except ValueError as error:
        raise EngineError(str(error)) from None


def default_threads() -> int:
    """``SPARSEBERT_NUM_THREADS``, else the number of CPUs that this process may use."""
    text = os.environ.get("SPARSEBERT_NUM_THREADS", "")
    if text:
        return checked_threads(text, "SPARSEBERT_NUM_THREADS")
    return available_cores()


def available_cores() -> int:
    """CPUs that this process may use; in a container, perhaps fewer than the machine has.

    A limit on CPU time counts in whole CPUs, rounded down: threads beyond it would all be stopped
    together whenever the limit is reached.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1
    limit = cpu_limit()
    return cores if limit is None else max(1, min(cores, int(limit)))


def checked_threads(threads: int | str, source: str = "threads") -> int:
    """A thread count from 1 to 1024, or EngineError."""
    try:
        count = int(threads)
    except ValueError:
        count = 0
    if not 1 <= count <= 1024:
        raise EngineError(f"{source} must be an integer from 1 to 1024, not '{threads}'.")
    return count


class Encoder:
    """A model ready to run. Calls may come from many Python threads at once; they take turns.

    A call raises InputError for ids, types or lengths outside the model's tables, and
    CheckpointError if a result is not finite.

    ``weights`` maps canonical names (see `checkpoint.families`) to arrays: float32 or float16
    matrices ``[out, in]``, `compressed.Compressed` for pruned ones, float32 vectors; or the layouts
    of `quantized` for linear layers and tables, with last layers and vectors in float32. They are
    used in place and kept alive. With ``compute="bf16"``, linear layers round float weights (once,
    into a copy) and their inputs to bf16 and sum the products in fp32. Raises EngineError if a
    weight is missing or has the wrong shape, if weights are int8 and bf16 is requested, or if the
    system cannot start that many threads.
    """

    def __init__(
        self,
        config: Configuration,
        weights: Mapping[str, Weight],
        *,
        threads: int | None = None,
        compute: str | None = None,
    ) -> None:
        if compute not in (None, *COMPUTE):
            raise EngineError(
                f"compute must be {' or '.join(COMPUTE)}, or omitted, not '{compute}'."
            )
        if compute and any(isinstance(weight, Quantized) for weight in weights.values()):
            raise EngineError(
                f"int8 models are computed in int8, not in {compute}: "
                "pack the model as fp16 or fp32."
            )
        self.compute = compute
        self._head = config.head.value
        self._outputs = {"question-answering": 2, "masked-lm": config.vocab_size}.get(
            self._head, len(config.labels)
        )
        settings = _settings(config, self._outputs)
        arrays = {name: _native(weight) for name, weight in weights.items()}
        count = default_threads() if threads is None else checked_threads(threads)
        name = instruction_set()
        try:
            self._native = _engine.Encoder(settings, arrays, count, name, compute or "")
        except ValueError as error:
            raise EngineError(f"the engine cannot load this model: {error}") from None
        except RuntimeError as error:
            raise _too_few_threads(error) from None
        self.hidden_size: int = settings["hidden_size"]

    @property
    def threads(self) -> int:
        return self._native.threads

    @property
    def instruction_set(self) -> str:
        return self._native.instruction_set

    @property
    def kernel(self) -> str | None:
        """The kernel for int8 layers and why it was chosen; None if there is no choice.

        With ``compute="bf16"``, the instructions that multiply, or that the CPU has none. In int8,
        for example ``blend kernel (measured 0.11 ms against 0.15 ms)``: a layer of 768 by 768 on 64
        tokens, measured once per process. Results do not depend on it.
        """
        return self._native.kernel

    def hidden(
        self,
        ids: Integers,
        type_ids: Integers,
        offsets: Integers,
        keys: Integers | None = None,
    ) -> Floats:
        """The last hidden state of every token, float32 ``[tokens, hidden]``.

        With ``keys``, int32 ``[batch]``, only that many leading tokens of each sequence are
        attended to; the tokens after them attend to these alone. InputError for a token that would
        attend to none, because it follows them by more than a layer's window.
        """
        out = np.empty((len(ids), self.hidden_size), dtype=np.float32)
        if keys is not None:
            keys = np.ascontiguousarray(keys, dtype=np.int32)
        return self._run(self._native.hidden, ids, type_ids, offsets, keys, out)

    def pooled(
        self,
        ids: Integers,
        type_ids: Integers,
        offsets: Integers,
        mode: str = "mean",
        normalize: bool = False,
    ) -> Floats:
        """One vector per sequence, float32 ``[batch, hidden]``.

        ``mode`` is mean, cls, max or mean_sqrt_len over the last hidden state, as in
        sentence-transformers; ``normalize`` scales each to Euclidean length 1.
        """
        out = np.empty((len(offsets) - 1, self.hidden_size), dtype=np.float32)
        return self._run(self._native.pooled, ids, type_ids, offsets, mode, normalize, out)

    def head(self, ids: Integers, type_ids: Integers, offsets: Integers) -> Floats:
        """The output of the model's head, float32.

        Sequence classification ``[batch, labels]``; question answering ``[tokens, 2]`` (start,
        end); token classification ``[tokens, labels]``; masked LM ``[tokens, vocabulary]``.
        Raises InputError for an encoder without a head.
        """
        rows = len(offsets) - 1 if self._head == "sequence-classification" else len(ids)
        out = np.empty((rows, self._outputs), dtype=np.float32)
        return self._run(self._native.head, ids, type_ids, offsets, out)

    @staticmethod
    def _run(function: Any, ids: Any, type_ids: Any, offsets: Any, *rest: Any) -> Floats:
        arrays = [np.ascontiguousarray(a, dtype=np.int32) for a in (ids, type_ids, offsets)]
        try:
            finite = function(*arrays, *rest)
        except ValueError as error:
            raise InputError(str(error)) from None
        except RuntimeError as error:  # in a forked process, whose first run restarts the threads
            raise _too_few_threads(error) from None
        if not finite:
            raise CheckpointError(
                "the model's output is not finite: its weights are damaged, or so large that sums "
                "overflow. Download or create the model again."
            )
        out: Floats = rest[-1]
        return out


def _too_few_threads(error: RuntimeError) -> EngineError:
    return EngineError(
        f"{error}: the system allows no more, or lacks the memory for them. Request fewer with "
        "threads= or SPARSEBERT_NUM_THREADS."
    )


def _settings(config: Configuration, outputs: int) -> dict[str, Any]:
    """The settings of a model that the native module takes."""
    settings = {name: getattr(config, name) for name in _CONFIG_FIELDS}
    settings |= {name: getattr(config.family, name) for name in _FAMILY_FIELDS}
    settings["position_table"] = config.position_table
    settings["slopes"] = list(config.slopes)
    settings["token_types"] = config.token_types is not None
    settings |= {f"{name}_bias": name in config.biases for name in _BIASES}
    settings["attention"] = [
        (layer.window, layer.theta, layer.factor) for layer in config.attention
    ]
    settings["layer_order"] = list(config.layer_order)
    settings["projection"] = config.projects
    found = config.disentangled
    settings["disentangled"] = found and (
        found.rows,
        found.buckets,
        found.farthest,
        "c2p" in found.terms,
        "p2c" in found.terms,
        found.norm,
    )
    head = config.head_shape
    settings["head_input"] = "none" if head is None else head.pooling or "tokens"
    if head is not None:
        settings |= {
            "head_dense": head.dense or "",
            "head_dense_bias": head.has_dense_bias,
            "head_activation": head.activation or "none",
            "head_norm": head.norm or "",
            "head_last": head.last,
            "head_last_bias": head.last_bias,
            "head_bias": head.has_bias,
            "head_decoder": config.head.value == "masked-lm",
            "head_outputs": outputs,
        }
    return settings


def _native(weight: Weight) -> Any:
    """What the native module takes: a contiguous, aligned array, or a tuple of a matrix's parts."""
    if isinstance(weight, np.ndarray):
        return _in_place(weight)
    kind = "compressed" if isinstance(weight, Compressed) else weight.layout
    pattern = weight.pattern
    numbers: tuple[int, ...] = ()
    if pattern is not None:
        numbers = {
            "compressed": (pattern.n, pattern.m, pattern.shared_rows),
            "shared-pairs": (pattern.shared_rows,),
            "panels": (pattern.n, pattern.m),
        }.get(kind, ())
    return (kind, weight.columns, *numbers, *(_in_place(part) for part in weight.parts.values()))


def _in_place(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array itself unless it must be copied to be contiguous, aligned and native-endian."""
    native = array.dtype.newbyteorder("=")
    return np.require(array, dtype=native, requirements=["C_CONTIGUOUS", "ALIGNED"])
