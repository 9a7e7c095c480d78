"""What is fetched to build, test and release is pinned: actions, the image, packages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from checkout import CHECKOUT

yaml = pytest.importorskip("yaml")
tomllib = pytest.importorskip("tomllib")  # Python 3.11
pytest.importorskip("packaging")

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if not (CHECKOUT / ".github").is_dir():
    pytest.skip("the source archive has no workflows", allow_module_level=True)

WORKFLOWS = sorted((CHECKOUT / ".github" / "workflows").glob("*.yml"))
LOCKS = CHECKOUT / "requirements"
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
TORCH = "torch"  # its builds without CUDA have hashes of their own: constraints.txt has its version
SYSTEMS = [  # what markers are asked about, beside the Python
    {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
]
PYTHONS = ["3.10", "3.12", "3.14"]


def environments() -> list[dict[str, str]]:
    return [
        {
            **system,
            "python_version": python,
            "python_full_version": f"{python}.0",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "extra": "",
        }
        for system in SYSTEMS
        for python in PYTHONS
    ]


def listed(path: Path) -> list[str]:
    """The lines of a file of requirements, continued ones as one."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def locked(name: str) -> list[tuple[Requirement, int]]:
    """Each requirement of a lock, with how many hashes it has."""
    found = []
    for line in listed(LOCKS / f"{name}.txt"):
        requirement, *hashes = re.split(r"\s+--hash=sha256:", line)
        assert all(re.fullmatch(r"[0-9a-f]{64}\s*", each) for each in hashes), line
        found.append((Requirement(requirement), len(hashes)))
    return found


def of_project(extra: str | None) -> list[Requirement]:
    """What the package requires, or one of its extras, those that it names included."""
    project = PROJECT["project"]
    lines = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    found = []
    for requirement in map(Requirement, lines):
        if requirement.name == project["name"]:
            found += [each for name in requirement.extras for each in of_project(name)]
        else:
            found.append(requirement)
    return found


WANTED = {
    "build": lambda: [
        *map(Requirement, PROJECT["build-system"]["requires"]),
        *map(Requirement, listed(LOCKS / "build.in")),
    ],
    "release": lambda: [Requirement(line) for line in listed(LOCKS / "release.in")],
    "serve": lambda: of_project(None) + of_project("serve"),
    "docs": lambda: of_project(None) + of_project("docs"),
    "dev": lambda: of_project(None) + of_project("dev"),
    "clients": lambda: [
        *of_project(None),
        *of_project("serve"),
        *map(Requirement, listed(CHECKOUT / "tests" / "clients" / "requirements.txt")),
    ],
}


@pytest.mark.parametrize("name", sorted(path.stem for path in LOCKS.glob("*.txt")))
def test_a_lock_has_one_version_with_hashes_of_all_that_is_asked_for(name: str) -> None:
    lock, wanted = locked(name), WANTED[name]()
    for requirement, hashes in lock:
        assert hashes, f"{requirement} has no hash: run scripts/lock"
        assert [each.operator for each in requirement.specifier] == ["=="], requirement
    for environment in environments():
        versions: dict[str, Version] = {}
        for requirement, _ in lock:
            if requirement.marker is None or requirement.marker.evaluate(environment):
                key = canonicalize_name(requirement.name)
                assert key not in versions, f"{key} is locked twice for {environment}"
                versions[key] = Version(next(iter(requirement.specifier)).version)
        for requirement in wanted:
            key = canonicalize_name(requirement.name)
            if key == TORCH or (
                requirement.marker and not requirement.marker.evaluate(environment)
            ):
                continue
            assert key in versions, f"{key} is not in {name}.txt: run scripts/lock"
            assert versions[key] in requirement.specifier, (
                f"{key} {versions[key]} is locked, {requirement} is asked for: run scripts/lock"
            )


def steps() -> list[tuple[str, dict[str, Any]]]:
    return [
        (path.name, step)
        for path in WORKFLOWS
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
        for step in job["steps"]
    ]


def test_actions_are_pinned_by_commit_and_say_of_which_version() -> None:
    for name, step in steps():
        if "uses" in step:
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"]), f"{name}: {step['uses']}"
    for path in WORKFLOWS:
        for line in re.findall(r"uses: .*", path.read_text(encoding="utf-8")):
            assert re.search(r" # v\d+(\.\d+)*$", line), f"{path.name}: {line}"
    commits: dict[str, set[str]] = {}
    for _, step in steps():
        action, _, commit = step.get("uses", "").partition("@")
        commits.setdefault(action, set()).add(commit)
    assert all(len(found) == 1 for found in commits.values()), "one version of an action in all"


def test_workflows_may_read_and_nothing_else_unless_a_job_says_so() -> None:
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow["permissions"] == {"contents": "read"}, path.name
        assert "pull_request_target" not in workflow[True], path.name  # YAML's `on`
    for name, step in steps():
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False, name
        assert "${{ github.event" not in step.get("run", ""), f"{name}: a shell reads a stranger's"


def test_pip_installs_what_is_locked() -> None:
    for name, step in steps():
        for line in step.get("run", "").splitlines():
            # The archive is installed as a user's pip would, when it has been kept already.
            if "pip install" in line and "dist/*.tar.gz" not in line:
                assert "--no-deps --require-hashes -r requirements/" in line, f"{name}: {line}"
    dockerfile = (CHECKOUT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"pip (?:install|wheel)[^&\n]*", dockerfile):
        assert "--no-deps" in line, line
        assert "--require-hashes" in line or "--no-build-isolation" in line or "--no-index" in line
    for line in re.findall(r"^FROM (\S+)", dockerfile, re.M):
        assert re.fullmatch(r"[\w./:-]+@sha256:[0-9a-f]{64}", line), line


def test_dependabot_sees_all_that_is_pinned() -> None:
    updates = yaml.safe_load((CHECKOUT / ".github" / "dependabot.yml").read_text())["updates"]
    assert {(each["package-ecosystem"], each["directory"]) for each in updates} == {
        ("github-actions", "/"),
        ("docker", "/"),
        ("pip", "/requirements"),
    }
