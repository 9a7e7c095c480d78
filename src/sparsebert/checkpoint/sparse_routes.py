"""How a folder makes sparse embeddings of texts: from masked-LM logits, or a table (SPLADE).

A Router may treat queries differently from documents: inference-free models look up the weights of
queries (Geng et al. 2024, arXiv:2411.04403).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sparsebert.checkpoint.dtypes import Float32
from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.json_files import ConfigValues, read_object
from sparsebert.checkpoint.known_keys import SPARSE_TABLE, SPLADE_POOLING
from sparsebert.checkpoint.model_settings import MODEL_SETTINGS_NAME, model_settings
from sparsebert.checkpoint.modules import Module, read_modules, read_routes, unsupported_route
from sparsebert.checkpoint.multi_vector import Task
from sparsebert.checkpoint.vector_layers import read_floats, tensors_at
from sparsebert.errors import CheckpointError

SPLADE_MODULE = "SpladePooling"
_TABLE = "SparseStaticEmbedding"


@dataclass(frozen=True)
class SparsePooling:
    """How SPLADE turns masked-LM logits x into a weight for each token of the vocabulary.

    For each token of the text log(1 + max(x, 0)), with ``twice`` also log(1 + that), and of these
    the largest ("max") or the sum ("sum"). Formal et al. 2021, arXiv:2107.05720 and 2109.10086.
    ``most`` limits how many weights are kept, the largest ones. ``unsupported`` is as in `Pooling`.
    """

    strategy: str = "max"
    twice: bool = False
    most: int | None = None
    unsupported: str = ""

    def check(self) -> None:
        """Raise CheckpointError if texts of the folder cannot be embedded."""
        if self.unsupported:
            raise CheckpointError(self.unsupported)


@dataclass(frozen=True)
class TokenTable:
    """A fixed weight for each token of the vocabulary; a text has the weights of its tokens.

    ``folder`` contains the weights and a tokenizer; ``most`` is as in `SparsePooling`. Texts are
    truncated to ``longest`` tokens, None for the tokenizer's own limit.
    """

    folder: Path
    most: int | None = None
    longest: int | None = None

    def weights(self) -> Float32:
        """float32 ``[vocabulary]``. Raises CheckpointError."""
        tensors = tensors_at(self.folder)
        if "weight" not in tensors or len(tensors.spec("weight").shape) != 1:
            raise CheckpointError(f"{self.folder} lacks the tensor 'weight', a list of weights.")
        return read_floats(tensors, "weight", tensors.spec("weight").shape, self.folder)


SparseWay = SparsePooling | TokenTable


@dataclass(frozen=True)
class SparseRoutes:
    """``usual`` is for texts without a task; ``tasks`` has the routes of a Router."""

    usual: SparseWay = field(default_factory=SparsePooling)
    tasks: Mapping[str, SparseWay] = field(default_factory=dict)

    def of(self, task: Task | None) -> SparseWay:
        """The route of queries or documents, or of texts without a task."""
        return self.usual if task is None else self.tasks.get(task, self.usual)

    def limited(self, longest: int) -> SparseRoutes:
        """The same with tables that truncate texts to ``longest`` tokens."""

        def way(each: SparseWay) -> SparseWay:
            return replace(each, longest=longest) if isinstance(each, TokenTable) else each

        return SparseRoutes(way(self.usual), {task: way(each) for task, each in self.tasks.items()})


def read_sparse_routes(folder: Path) -> SparseRoutes:
    """The routes of the folder's modules; plain SPLADE without any. Raises CheckpointError."""
    most = _most_weights(folder)
    routes = read_routes(folder)
    if not routes:
        return SparseRoutes(_way(read_modules(folder), most) or SparsePooling(most=most))
    ways = {name: _way(modules, most) for name, modules in routes.items()}
    usual = next(iter(ways.values())) or SparsePooling(unsupported=unsupported_route(folder))
    return SparseRoutes(usual, {name: way for name, way in ways.items() if way})


def _way(modules: Sequence[Module], most: int | None) -> SparseWay | None:
    if [module.kind for module in modules] == [_TABLE]:
        file = modules[0].folder / "config.json"
        SPARSE_TABLE.check(read_object(file) if has_file(file) else {}, file)
        return TokenTable(modules[0].folder, most)
    for module in modules:
        if module.kind == SPLADE_MODULE:
            file = module.folder / "config.json"
            settings = read_object(file)
            SPLADE_POOLING.check(settings, file)
            strategy = settings.get("pooling_strategy", "max")
            activation = settings.get("activation_function", "relu")
            for value, known in (
                (strategy, ("max", "sum")),
                (activation, ("relu", "log1p_relu")),
            ):
                if value not in known:
                    raise CheckpointError(
                        f"{file}: {value!r} is not supported; use one of {', '.join(known)}."
                    )
            return SparsePooling(strategy, activation == "log1p_relu", most)
    return None


def _most_weights(folder: Path) -> int | None:
    settings = model_settings(folder)
    if settings.get("max_active_dims") is None:
        return None
    return ConfigValues(settings, folder / MODEL_SETTINGS_NAME, {}).count("max_active_dims")
