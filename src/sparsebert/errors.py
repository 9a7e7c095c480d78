"""Everything sparsebert raises on purpose.

    SparsebertError
    ├── CheckpointError                 a model folder that cannot be read as one
    │   └── UnsupportedArchitectureError
    ├── PatternError                    an N:M pattern that does not exist, fit or hold
    ├── OutputError                     an output folder that exists or cannot be written
    ├── InputError                      a text or token sequence the model cannot take
    ├── DataError                       a task file with missing columns, bad labels, no rows
    ├── TrainingError                   a training that cannot go on or ended with a broken mask
    ├── EngineError                     an instruction set or thread count that cannot be had
    ├── ExportError                     an exported file that is not the model it was made from
    ├── ClusterError                    a Ray cluster that cannot be reached or cannot go on
    └── MissingExtraError               an optional part of the package is not installed

Each message is one sentence or two for the person at the keyboard: what is wrong, where, what to
do. The command line prints it and exits with 1; a traceback is kept for faults of our own.
"""


class SparsebertError(Exception):
    """Base of every error in this package: catch it to catch them all."""


class CheckpointError(SparsebertError):
    """A folder is not a model folder, or its config and weights are damaged or disagree."""


class UnsupportedArchitectureError(CheckpointError):
    """The model is of an architecture that sparsebert does not know."""


class PatternError(SparsebertError):
    """An N:M pattern is malformed, does not divide a layer, or does not hold in its weights."""


class OutputError(SparsebertError):
    """An output folder exists already, or could not be written. What was there stays whole."""


class InputError(SparsebertError):
    """A text or a token sequence that the model cannot take (empty, too long, id out of range)."""


class DataError(SparsebertError):
    """A task's data cannot be used: file, columns, labels or rows."""


class TrainingError(SparsebertError):
    """A training run cannot go on, or ended with a pattern that is no longer whole."""


class EngineError(SparsebertError):
    """The native engine cannot run as asked (instruction set, threads), or a GPU is missing."""


class ExportError(SparsebertError):
    """An exported file has lost zeros or answers otherwise than the model; it was not kept."""


class ClusterError(SparsebertError):
    """A Ray cluster cannot be reached, or work on it cannot go on."""


class MissingExtraError(SparsebertError):
    """A feature needs an optional dependency; the message names the extra to install."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs the [{extra}] extra: pip install 'sparsebert[{extra}]'.")
