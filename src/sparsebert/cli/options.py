"""Command-line options made from declarations (`sparsebert.options`).

A command takes a group of them as one parameter, which `expanded` replaces with an option for each
field:

    def evaluate(model: ModelArgument, columns: Columns = NOTHING) -> None: ...

What the command gets is a mapping of those that were typed (or set by an environment variable); the
others keep the defaults of the function that they are passed on to.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from types import MappingProxyType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from sparsebert.options import Options, declarations

Given = Mapping[str, Any]
NOTHING: Given = MappingProxyType({})
_CONTEXT = "_typer_context"  # for a command that does not take one itself


@dataclass(frozen=True)
class Group:
    """The options of a declaration that a command takes: all with help, or the named ones."""

    options: type[Options]
    names: tuple[str, ...] = ()

    def parameters(self) -> dict[str, inspect.Parameter]:
        """A keyword parameter for each, annotated as typer reads it."""
        hints = get_type_hints(self.options)
        names = self.names or [
            name for name, declared in declarations(self.options).items() if declared.help
        ]
        return {
            name: inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=getattr(self.options, name),
                annotation=Annotated[hints[name], declared_option(self.options, name)],
            )
            for name in names
        }


def declared_option(options: type[Options], name: str) -> Any:
    """The command-line option of one field."""
    declared = declarations(options)[name]
    flag = name.replace("_", "-")
    return typer.Option(
        f"--{flag}/--no-{flag}" if declared.negatable else f"--{flag}",
        metavar=declared.metavar,
        help=declared.help,
        min=declared.minimum,
        max=declared.most,
        show_default=declared.shown_default or True,
    )


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer sees it, with each `Group` replaced by its options."""
    signature = inspect.signature(command, eval_str=True)
    groups = dict(_groups(signature))
    if not groups:
        return command
    shown: dict[str, inspect.Parameter] = {}
    taken: dict[str, dict[str, inspect.Parameter]] = {}
    for name, parameter in signature.parameters.items():
        if name in groups:
            taken[name] = groups[name].parameters()
            shown |= taken[name]
        else:
            shown[name] = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
    context = next(
        (name for name, each in shown.items() if each.annotation is typer.Context), _CONTEXT
    )
    shown[context] = inspect.Parameter(
        context, inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context
    )

    @wraps(command)
    def run(**arguments: Any) -> None:
        given = given_options(arguments[context], arguments)
        if context == _CONTEXT:
            del arguments[context]
        for name, parameters in taken.items():
            for each in parameters:
                del arguments[each]
            arguments[name] = {each: given[each] for each in parameters if each in given}
        command(**arguments)

    run.__signature__ = signature.replace(parameters=list(shown.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: each.annotation for name, each in shown.items()}
    return run


def given_options(context: typer.Context, names: Iterable[str]) -> dict[str, Any]:
    """Those of the options that were typed or set by a variable, and not left at their defaults."""
    return {
        name: context.params[name]
        for name in names
        if (source := context.get_parameter_source(name))
        and source.name in ("COMMANDLINE", "ENVIRONMENT")
    }


def chosen(given: Given, *names: str) -> Given:
    """Those of the named options that were typed."""
    return {name: given[name] for name in names if name in given}


def _groups(signature: inspect.Signature) -> Iterator[tuple[str, Group]]:
    for name, parameter in signature.parameters.items():
        if get_origin(parameter.annotation) is Annotated:
            for each in get_args(parameter.annotation)[1:]:
                if isinstance(each, Group):
                    yield name, each
