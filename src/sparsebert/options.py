"""How an option is declared, once for Python, recipes and the command line.

    @dataclass(frozen=True)
    class FinetuneOptions(Options):
        batch_size: int = option(32, least=1, help="Rows at a time.")

The dataclass field holds the name, type and default; `option` adds limits and the ``--help`` text.
`Options` checks values against the declaration, and `sparsebert.cli.options` turns it into
command-line options. Importing this costs next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import (
    Any,
    ClassVar,
    Concatenate,
    ParamSpec,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from sparsebert.errors import SparsebertError

Value = TypeVar("Value")
Declared = ParamSpec("Declared")
Self = TypeVar("Self", bound="Options")

_METADATA = "option"
_TYPE_NAMES = {
    int: "an integer",
    float: "a number",
    str: "a string",
    bool: "true or false",
    tuple: "a tuple",
}


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What an option is, besides its name, type and default. All parts may be left out."""

    help: str = ""
    """Its line in ``--help``; an option without one is for Python and recipes only."""
    least: float | None = None
    """The smallest value allowed."""
    most: float | None = None
    """The largest value allowed; for integers only."""
    above: float | None = None
    """Values must be greater than this."""
    below: float | None = None
    """Values must be smaller than this."""
    choices: Collection[str] = ()
    metavar: str | None = None
    """What ``--help`` shows in place of a value."""
    shown_default: str | None = None
    """The default as ``--help`` words it, if the value itself says too little."""
    needs: str | None = None
    """The option without which this one has no meaning."""
    negatable: bool = False
    """Whether the command line has a ``--no-`` flag too."""
    without: str = ""
    """Completes "has no meaning" for options that need this one: "without a teacher"."""
    repr: bool = True
    """Whether the value may be shown: not if it is a secret."""

    @property
    def minimum(self) -> float | None:
        """The smallest value allowed, unless ``below`` limits values too."""
        return self.least if self.below is None else None


def _declared_by(
    declare: Callable[Declared, Declaration],
) -> Callable[Concatenate[Value, Declared], Value]:
    """`option`, which type checkers so know to take what ``declare`` takes."""

    def option(default: Value, /, *arguments: Declared.args, **parts: Declared.kwargs) -> Value:
        """The field of an `Options` dataclass; see `Declaration` for the arguments."""
        declaration = declare(*arguments, **parts)
        return field(default=default, metadata={_METADATA: declaration}, repr=declaration.repr)

    return option


option = _declared_by(Declaration)


def declarations(options: type[Options]) -> dict[str, Declaration]:
    """The declaration of each option, by name, in the order of the fields."""
    return {each.name: each.metadata.get(_METADATA, Declaration()) for each in fields(options)}


def option_types(options: type[Options]) -> dict[str, type]:
    """The type of each option, by name; ``int`` for ``int`` and for ``int | None``."""
    hints = get_type_hints(options)
    return {each.name: _one_type(hints[each.name]) for each in fields(options)}


def dependents(options: type[Options], name: str) -> tuple[str, ...]:
    """The options that have no meaning without the option ``name``, directly or through another."""
    declared = declarations(options)
    return tuple(each for each in declared if name in _needed(declared, each))


@dataclass(frozen=True)
class Options:
    """Base of dataclasses whose fields are declared by `option`, and checked when one is made.

    A subclass names its error and what its options are for.
    """

    error: ClassVar[type[SparsebertError]]
    purpose: ClassVar[str]
    """Completes the message for an unknown name: "is not an option of fine-tuning"."""

    def __post_init__(self) -> None:
        declared = declarations(type(self))
        types = option_types(type(self))
        for name, declaration in declared.items():
            value = getattr(self, name)
            self._check_type(name, value, types[name])
            if value is None:
                continue
            if declaration.choices and value not in declaration.choices:
                raise self.error(self.wrong_choice(name, value, declaration.choices))
            wrong = _outside(value, types[name], declaration)
            if wrong:
                raise self.error(f"{name} must {wrong}.")
        for name in declared:
            for needed in _needed(declared, name):
                if self.is_default(needed) and not self.is_default(name):
                    raise self.error(
                        f"{name} is {getattr(self, name)} but has no meaning "
                        f"{declared[needed].without}."
                    )

    @classmethod
    def from_names(cls: type[Self], given: Mapping[str, Any]) -> Self:
        """Options from values by name; a Path becomes its text, an unknown name raises an error."""
        names = declarations(cls)
        for name in given:
            if name not in names:
                raise cls.error(
                    f"'{name}' is not an option of {cls.purpose}: choose from {', '.join(names)}."
                )
        return cls(
            **{
                name: str(value) if isinstance(value, Path) else value
                for name, value in given.items()
            }
        )

    def wrong_choice(self, name: str, value: str, choices: Collection[str]) -> str:
        """The message for a value that is not one of the choices."""
        return f"{name} must be one of {', '.join(choices)}, not '{value}'."

    def is_default(self, name: str) -> bool:
        """Whether an option has its default value."""
        return bool(getattr(self, name) == getattr(type(self), name))

    def as_dict(self) -> dict[str, Any]:
        """All options as a dict, ready for JSON."""
        return asdict(self)

    def given(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        return {name: value for name, value in asdict(self).items() if not self.is_default(name)}

    def _check_type(self, name: str, value: Any, kind: type) -> None:
        if value is None and getattr(type(self), name) is None:
            return
        fits = isinstance(value, int | float if kind is float else kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise self.error(f"{name} must be {_TYPE_NAMES[kind]}, not {value!r}.")


def _outside(value: Any, kind: type, limits: Declaration) -> str:
    """What a value outside its limits must be instead; "" for one within them."""
    least, most, above, below = limits.least, limits.most, limits.above, limits.below
    if kind is int:
        if (least is not None and value < least) or (most is not None and value > most):
            bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
            return f"be an integer {bounds}, not {value}"
    elif below is not None:
        if not (least or 0) <= value < below:
            return f"be at least {least or 0:g} and below {below:g}, not {value}"
    elif above is not None:
        if not (math.isfinite(value) and value > above):
            return f"be greater than {above:g} and finite, not {value}"
    elif least is not None and not (math.isfinite(value) and value >= least):
        return f"be at least {least:g} and finite, not {value}"
    return ""


def _needed(declared: Mapping[str, Declaration], name: str) -> list[str]:
    """What an option needs, and what that needs in turn; the end of the chain comes first."""
    chain: list[str] = []
    while (needed := declared[name].needs) is not None:
        chain.insert(0, needed)
        name = needed
    return chain


def _one_type(hint: Any) -> type:
    if isinstance(hint, UnionType):
        (found,) = (kind for kind in get_args(hint) if kind is not type(None))
        return _one_type(found)
    kind: type = get_origin(hint) or hint
    return kind
