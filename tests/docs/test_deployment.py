"""The Dockerfile and the examples of docs/serving.md against the server that they start."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from typing import Any

import pytest
import typer

yaml = pytest.importorskip("yaml")
pytest.importorskip("fastapi")

from checkout import CHECKOUT
from served import serving
from sparsebert.cli.app import app as commands
from sparsebert.inference import load
from sparsebert.serving.app import create_app
from sparsebert.serving.served_model import ServedModel
from tiny_models import TinyBert

PAGE = (CHECKOUT / "docs" / "serving.md").read_text(encoding="utf-8")
DOCKERFILE = (CHECKOUT / "Dockerfile").read_text(encoding="utf-8")
SERVE = (CHECKOUT / "src" / "sparsebert" / "cli" / "serve.py").read_text(encoding="utf-8")


def documents() -> list[dict[str, Any]]:
    """The Kubernetes objects of the page, by a YAML parser."""
    (example,) = (
        block
        for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
        if "kind: Deployment" in block
    )
    return list(yaml.safe_load_all(example))


def kind(name: str) -> dict[str, Any]:
    (found,) = (each for each in documents() if each["kind"] == name)
    return found


def variables() -> set[str]:
    """Every variable that `sparsebert serve` reads."""
    named = set(re.findall(r"SPARSEBERT_[A-Z_]+", SERVE))
    flags = re.findall(r'"--([a-z-]+)', SERVE)
    return named | {f"SPARSEBERT_{flag.replace('-', '_').upper()}" for flag in flags}


@pytest.fixture(scope="module")
def paths(tiny_bert: TinyBert) -> set[str]:
    """The routes of a running server."""
    app = create_app([ServedModel("tiny", [load(tiny_bert("encoder"))])])
    return set(app.openapi()["paths"])


def test_probes_ask_routes_that_exist(paths: set[str]) -> None:
    (container,) = kind("Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {each["containerPort"] for each in container["ports"]}
    probes = [container[name] for name in container if name.endswith("Probe")]
    assert len(probes) >= 2
    for probe in probes:
        assert probe["httpGet"]["path"] in paths
        assert probe["httpGet"]["port"] in ports
    exposed = re.search(r"^EXPOSE (\d+)$", DOCKERFILE, re.M)
    assert exposed is not None
    assert int(exposed[1]) in ports
    assert f"SPARSEBERT_PORT={exposed[1]}" in DOCKERFILE


def test_the_containers_health_is_that_of_its_server(tiny_bert: TinyBert) -> None:
    """On the port that it was given, and past any proxy that its environment names."""
    pytest.importorskip("uvicorn")
    found = re.search(r"^HEALTHCHECK CMD (\[.*\])$", DOCKERFILE.replace("\\\n", ""), re.M)
    assert found is not None
    python, *arguments = json.loads(found[1])
    assert python == "python"

    def check(port: int) -> int:
        environment = {
            **os.environ,
            "SPARSEBERT_PORT": str(port),
            "http_proxy": "http://127.0.0.1:9",
            "no_proxy": "",
        }
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment, stderr=subprocess.DEVNULL).returncode

    with serving([ServedModel("tiny", [load(tiny_bert("encoder"))])]) as url:
        port = int(url.rpartition(":")[2])
        assert check(port) == 0
    assert check(port) != 0


def test_a_stop_is_noticed_before_the_server_ends() -> None:
    pod = kind("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    settings = {each["name"]: each["value"] for each in container["env"]}
    ready = container["readinessProbe"]
    delay = float(settings["SPARSEBERT_SHUTDOWN_DELAY"])
    assert ready["periodSeconds"] * ready["failureThreshold"] < delay
    assert delay < pod["terminationGracePeriodSeconds"]


def test_variables_are_those_of_serve() -> None:
    (container,) = kind("Deployment")["spec"]["template"]["spec"]["containers"]
    used = {each["name"] for each in container["env"]}
    used |= set(re.findall(r"SPARSEBERT_[A-Z_]+", DOCKERFILE))
    assert used <= variables()


def test_the_table_of_options_is_that_of_serve() -> None:
    given = {
        flag: each
        for each in typer.main.get_command(commands).commands["serve"].params
        for flag in (*each.opts, *each.secondary_opts)
        if flag.startswith("--")
    }
    table: dict[str, str] = {}
    for first, defaults in re.findall(r"^\| (`--[^|]+) \| ([^|]+) \|", PAGE, re.M):
        flags = re.findall(r"--[a-z-]+", first)
        values = defaults.split(", ")
        for at, flag in enumerate(flags):
            table[flag] = values[at] if len(values) == len(flags) else defaults
    assert table.keys() == given.keys() - {"--mapped"}  # told below the table
    for flag, told in table.items():
        option = given[flag]
        if isinstance(option.show_default, str):
            assert told == option.show_default, flag
        elif told == "off":
            assert option.default is False, flag
        else:
            assert told.replace(",", "") == str(option.default), flag


def test_the_service_finds_the_pods() -> None:
    template = kind("Deployment")["spec"]["template"]
    service = kind("Service")["spec"]
    assert service["selector"].items() <= template["metadata"]["labels"].items()
    (container,) = template["spec"]["containers"]
    assert service["ports"][0]["targetPort"] in {
        each["containerPort"] for each in container["ports"]
    }
    assert kind("Service")["metadata"]["name"] != "sparsebert"
    assert template["spec"]["enableServiceLinks"] is False
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    assert re.search(r"^USER \d+$", DOCKERFILE, re.M)  # a number: Kubernetes cannot look a name up


def test_the_image_has_what_the_wheel_is_made_of_and_no_torch() -> None:
    kept = [
        line[1:]
        for line in (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    ]
    for needed in ("pyproject.toml", "CMakeLists.txt", "src", "README.md", "LICENSE"):
        assert any(fnmatch(needed, pattern) for pattern in kept), needed
        assert (CHECKOUT / needed).exists()
    copied = re.findall(r"requirements/([\w-]+)\.txt(?= )", DOCKERFILE)
    assert set(copied) == {"build", "serve"}
    for name in copied:
        lock = CHECKOUT / "requirements" / f"{name}.txt"
        assert any(fnmatch(f"requirements/{name}.txt", pattern) for pattern in kept)
        assert "\ntorch==" not in lock.read_text(encoding="utf-8")


def unit() -> dict[str, list[str]]:
    """The [Service] section of the systemd unit, each setting with its values."""
    (example,) = re.findall(r"```ini\n(# /etc/systemd.*?)```", PAGE, re.S)
    settings: dict[str, list[str]] = {}
    for line in example.partition("[Service]")[2].partition("[Install]")[0].splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            settings.setdefault(name, []).append(value)
    return settings


def test_the_unit_and_the_pod_leave_the_server_no_privileges() -> None:
    settings = unit()
    asked = re.findall(r"(SPARSEBERT_\w+)=", " ".join(settings["Environment"]))
    assert set(asked) <= variables()
    for name in ("DynamicUser", "NoNewPrivileges", "MemoryDenyWriteExecute", "PrivateDevices"):
        assert settings[name] == ["yes"], name
    assert settings["CapabilityBoundingSet"] == [""]
    assert settings["ProtectSystem"] == ["strict"]
    assert settings["SystemCallFilter"] == ["@system-service", "~@privileged"]
    delay = float(re.findall(r"SHUTDOWN_DELAY=(\d+)", " ".join(settings["Environment"]))[0])
    assert delay < float(settings["TimeoutStopSec"][0])
    pod = kind("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
