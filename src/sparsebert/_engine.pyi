from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_Integers = npt.NDArray[np.int32]
_Floats = npt.NDArray[np.float32]

def available_instruction_sets() -> list[str]: ...
def select_instruction_set(name: str, /) -> str: ...

class Encoder:
    def __init__(
        self,
        config: Mapping[str, Any],
        weights: Mapping[str, Any],
        threads: int,
        isa: str,
        compute: str,
        /,
    ) -> None: ...
    @property
    def threads(self) -> int: ...
    @property
    def instruction_set(self) -> str: ...
    @property
    def kernel(self) -> str | None: ...
    def hidden(
        self,
        ids: _Integers,
        types: _Integers,
        offsets: _Integers,
        keys: _Integers | None,
        out: _Floats,
        /,
    ) -> bool: ...
    def pooled(
        self,
        ids: _Integers,
        types: _Integers,
        offsets: _Integers,
        mode: str,
        normalize: bool,
        out: _Floats,
        /,
    ) -> bool: ...
    def head(
        self, ids: _Integers, types: _Integers, offsets: _Integers, out: _Floats, /
    ) -> bool: ...
