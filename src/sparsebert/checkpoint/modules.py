"""The modules of a sentence-transformers folder, as modules.json and a Router list them.

The transformer may be in a sub-folder that modules.json names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.config import CONFIG_NAME
from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.json_files import inner_folder, read_json, read_object
from sparsebert.checkpoint.known_keys import ROUTER, ROUTER_PARAMETERS
from sparsebert.errors import CheckpointError

MODULES_NAME = "modules.json"
ROUTER_NAME = "router_config.json"
_ROUTERS = ("Router", "Asym")  # the latter in old folders
TRANSFORMERS = ("Transformer", "MLMTransformer")  # the latter with a masked-LM head
_LIBRARY = "sentence_transformers"


@dataclass(frozen=True)
class Module:
    """``kind`` is its class, without the Python module for sentence-transformers' own.

    ``has_folder`` is False if its folder is the model's own, as the transformer's is.
    """

    kind: str
    folder: Path
    has_folder: bool = True


def transformer_folder(folder: Path) -> Path:
    """Where config.json and the weights are: ``folder``, or the sub-folder modules.json names."""
    for module in read_modules(folder):
        if module.kind in TRANSFORMERS:
            return module.folder
    return folder


def module_folders(folder: Path) -> list[Path]:
    """The existing module sub-folders of a folder, except the transformer's."""
    modules = read_modules(folder)
    for route in read_routes(folder).values():
        modules += [module for module in route if module not in modules]
    return [
        module.folder
        for module in modules
        if module.kind not in TRANSFORMERS and module.folder != folder and module.folder.is_dir()
    ]


def read_modules(folder: Path) -> list[Module]:
    """The modules that modules.json lists, in order; none without that file.

    A Router is replaced by the modules of its route for texts without a task or, if that has no
    transformer, of the first route that has one.
    """
    modules: list[Module] = []
    for module in _listed_modules(folder):
        if module.kind in _ROUTERS:
            routes = _routes_of(module)
            modules += next((each for each in routes.values() if _has_transformer(each)), [])
        else:
            modules.append(module)
    return modules


def read_routes(folder: Path) -> dict[str, list[Module]]:
    """The modules of each route of a Router, beginning with the route for texts without a task.

    That one has no name and no modules if sentence-transformers refuses such texts. Empty without a
    Router. Raises CheckpointError for one that is damaged or has several transformers.
    """
    router = _router(folder)
    return {} if router is None else _routes_of(router)


def router_types(folder: Path) -> dict[str, str]:
    """The kinds (`Module.kind`) of a Router's modules, by the class names in its file."""
    router = _router(folder)
    if router is None:
        return {}
    where, types = router.folder / ROUTER_NAME, _router_settings(router).get("types")
    if not isinstance(types, dict):
        raise CheckpointError(f"{where} must contain the 'types' of its modules.")
    return {named: _kind(named, where) for named in types.values()}


def unsupported_route(folder: Path) -> str:
    """Why texts without a task cannot be embedded by their Router's route; "" if they can."""
    for route, modules in read_routes(folder).items():
        if not route:
            return (
                f"{folder / ROUTER_NAME} sets allow_empty_key to false and no default_route, so "
                "texts without a task have no route: pass their task, or set default_route."
            )
        if not _has_transformer(modules):
            return (
                f"{folder / ROUTER_NAME} sends texts without a task along the route '{route}', "
                "which has no transformer, so sparsebert cannot compute it: to embed documents, "
                "set default_route to their route."
            )
        break
    return ""


def differing_routes(folder: Path) -> str:
    """Why queries and documents cannot be embedded alike; "" if their routes do not differ."""
    routes = read_routes(folder)
    usual = next(iter(routes.values()), [])
    if all(routes.get(task, usual) == usual for task in ("query", "document")):
        return ""
    return (
        f"{folder / ROUTER_NAME} has different routes for queries and documents, which sparsebert "
        "supports only for sparse embeddings: save the route you need as a model of its own."
    )


def _has_transformer(modules: list[Module]) -> bool:
    return any(module.kind in TRANSFORMERS for module in modules)


def _router(folder: Path) -> Module | None:
    return next((each for each in _listed_modules(folder) if each.kind in _ROUTERS), None)


def _router_settings(router: Module) -> dict[str, Any]:
    where = router.folder / ROUTER_NAME
    return read_object(where if has_file(where) else router.folder / CONFIG_NAME)


def _routes_of(router: Module) -> dict[str, list[Module]]:
    where, settings = router.folder / ROUTER_NAME, _router_settings(router)
    types, structure = settings.get("types"), settings.get("structure")
    parameters = settings.get("parameters") or {}
    if not isinstance(types, dict) or not isinstance(structure, dict) or not structure:
        raise CheckpointError(f"{where} must contain 'types' and the 'structure' of each route.")
    if not isinstance(parameters, dict):
        raise CheckpointError(f"{where}: 'parameters' must be an object.")
    ROUTER.check(settings, where)
    ROUTER_PARAMETERS.check(parameters, where)
    if router.has_folder or parameters.get("route_mappings"):
        raise CheckpointError(
            f"{where}: a Router must be at the top of the folder and route by task only."
        )
    routes: dict[str, list[Module]] = {}
    for name, listed in structure.items():
        if not isinstance(listed, list) or not all(each in types for each in listed):
            raise CheckpointError(f"{where}: the route '{name}' has a module without a type.")
        routes[name] = []
        for each in listed:
            inner = inner_folder(router.folder, each, where)
            routes[name].append(Module(_kind(types[each], where), inner, inner != router.folder))
    usual = parameters.get("default_route")
    if usual is not None and usual not in list(routes):  # it may be of any type
        raise CheckpointError(f"{where}: its default_route {usual!r} is not one of its routes.")
    if "text" in routes:  # the kind of input comes before the default
        usual = "text"
    elif usual is None:
        usual = next(iter(routes)) if parameters.get("allow_empty_key", True) else ""
    transformers = {
        module.folder for route in routes.values() for module in route if _has_transformer([module])
    }
    if len(transformers) > 1:
        raise CheckpointError(
            f"{where} has {len(transformers)} transformers, but only one is supported: save the "
            "one you need as a model of its own."
        )
    return {usual: routes.get(usual, []), **routes}


def transformer_on_top(folder: Path) -> dict[str, Any]:
    """The files of a folder that name its modules, changed to have the transformer at the top."""
    modules: list[dict[str, Any]] = read_json(folder / MODULES_NAME)
    for entry, read in zip(modules, _listed_modules(folder), strict=True):
        if read.kind in TRANSFORMERS:
            entry["path"] = ""
    found: dict[str, Any] = {MODULES_NAME: modules}
    router = _router(folder)
    if router is not None:
        settings = _router_settings(router)
        moved = {
            each: "" if _kind(kind, folder / ROUTER_NAME) in TRANSFORMERS else each
            for each, kind in settings["types"].items()
        }
        settings["types"] = {moved[each]: kind for each, kind in settings["types"].items()}
        settings["structure"] = {
            route: [moved[each] for each in modules]
            for route, modules in settings["structure"].items()
        }
        found[ROUTER_NAME] = settings
    return found


def _kind(named: Any, where: Path) -> str:
    """The class of a module, without the Python module for sentence-transformers' own."""
    if not isinstance(named, str) or not named:
        raise CheckpointError(f"{where}: a module has no 'type'.")
    return named.rsplit(".", 1)[-1] if named.startswith(f"{_LIBRARY}.") else named


def _listed_modules(folder: Path) -> list[Module]:
    where = folder / MODULES_NAME
    if not has_file(where):
        return []
    listed = read_json(where)
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise CheckpointError(f"{where} must hold a list of modules.")
    modules = []
    for entry in listed:
        kind = _kind(entry.get("type"), where)
        inner = inner_folder(folder, entry.get("path", ""), where)
        modules.append(Module(kind, inner, inner != folder))
    return modules
