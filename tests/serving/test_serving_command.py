"""`sparsebert serve` as a process: its words, its variables, its end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("orjson")
httpx = pytest.importorskip("httpx")

from checkout import CHECKOUT
from sparsebert.cli import main


@contextmanager
def started(
    *arguments: Any, before: Callable[[], None] | None = None, **variables: str
) -> Iterator[tuple[Any, str, list[str]]]:
    """The process, the URL it listens on, and the lines of its log so far.

    ``before`` is called in it before it begins.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "sparsebert", "serve", *map(str, arguments), "--port", "0"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
        preexec_fn=before,
    )
    lines: list[str] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r'http://[\w.\[\]:]+|unix:[^\s"]+', line):
                break
        assert found, lines
        yield process, found[0], lines
    finally:
        process.kill()
        process.communicate()


def half_asked(url: str) -> tuple[socket.socket, bytes]:
    """A connection on which half of a request was sent, and the other half."""
    body = json.dumps({"inputs": ["the ferry leaves"] * 8}).encode()
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    head = f"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    connection.sendall(head + body[:20])
    return connection, body[20:]


def read_all(connection: socket.socket) -> bytes:
    answer = b""
    while part := connection.recv(65536):
        answer += part
    return answer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_what_is_in_flight_end(tiny_bert, number):
    with started(tiny_bert(), "--threads", 1) as (process, url, _):
        connection, rest = half_asked(url)
        assert httpx.get(f"{url}/health").status_code == 200  # so the half has arrived
        process.send_signal(number)
        host, port = url.removeprefix("http://").split(":")
        for line in process.stderr:
            if "event=stopping" in line:
                assert "in_flight=1" in line
                break
        end = time.monotonic() + 20
        refused = False
        while not refused:  # it ends listening as it says that it stops, or a moment later
            assert time.monotonic() < end
            with socket.socket() as other:
                refused = other.connect_ex((host, int(port))) != 0
        assert process.poll() is None
        connection.sendall(rest)
        with connection:
            answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert len(json.loads(answer.partition(b"\r\n\r\n")[2])) == 8
        assert process.wait(20) == 0
        assert "event=stopped" in process.stderr.read()


def test_a_stop_does_not_wait_for_ever(tiny_bert):
    with started(tiny_bert(), "--shutdown-timeout", 1) as (process, url, _):
        connection, _ = half_asked(url)
        with connection:
            assert httpx.get(f"{url}/health").status_code == 200
            process.terminate()
            assert process.wait(20) == 0


def test_variables_and_json_lines(tiny_bert):
    variables = {
        "SPARSEBERT_MODELS": f"one={tiny_bert()} two={tiny_bert()}",
        "SPARSEBERT_MAX_CLIENT_BATCH_SIZE": "2",
        "SPARSEBERT_MAX_BATCH_TOKENS": "99",
        "SPARSEBERT_API_KEY": "open",
        "SPARSEBERT_AUTO_TRUNCATE": "true",
        "SPARSEBERT_NUM_THREADS": "1",
        "SPARSEBERT_WORKERS": "2",
        "SPARSEBERT_JSON": "1",
    }
    with started(**variables) as (process, url, lines):
        event = json.loads(lines[-1])
        assert (event["event"], event["level"], event["address"]) == ("listening", "info", url)
        with httpx.Client(base_url=url, headers={"Authorization": "Bearer open"}) as client:
            info = client.get("/info").json()
            assert client.post("/embed", json={"inputs": "a " * 99}).status_code == 200
            assert client.post("/embed", json={"inputs": ["a"] * 3}).status_code == 413
            assert httpx.get(f"{url}/info").status_code == 401
        process.terminate()
        written = [json.loads(line) for line in process.stderr.read().splitlines()]
        assert process.wait(20) == 0
    assert [model["model_id"] for model in info["models"]] == ["one", "two"]
    assert [(model["workers"], model["threads"]) for model in info["models"]] == [(2, 1)] * 2
    assert (info["max_batch_tokens"], info["auto_truncate"]) == (99, True)
    asked = [line for line in written if line["event"] == "request"]
    assert [(line["route"], line["status"]) for line in asked] == [
        ("/info", 200),
        ("/embed", 200),
        ("/embed", 413),
        ("other", 401),
    ]
    assert asked[1]["tokens"] == 64
    assert "open" not in json.dumps(written)


def run(*arguments: Any, capfd: Any) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        main(["serve", *map(str, arguments)])
    assert isinstance(end.value.code, int)
    return end.value.code, capfd.readouterr().err


class TestRefusals:
    def test_the_port_is_taken(self, tiny_bert, capfd):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            code, error = run(tiny_bert(), "--port", port, capfd=capfd)
        assert code == 1
        assert f"error: cannot listen on 127.0.0.1, port {port}: address already in use." in error
        code, error = run(tiny_bert(), "--host", "nowhere.invalid", capfd=capfd)
        assert code == 1
        assert "error: cannot listen on nowhere.invalid" in error

    def test_models(self, tiny_bert, tmp_path, capfd):
        folder = tiny_bert()
        code, error = run(folder, folder, capfd=capfd)
        assert code == 1
        assert "two models are called" in error
        code, error = run(f"a={tmp_path / 'nothing'}", capfd=capfd)
        assert code == 1
        assert "is not a folder" in error
        code, error = run(folder, "--max-batch-tokens", 10, capfd=capfd)
        assert code == 1
        assert "cannot hold the longest text" in error

    @pytest.mark.parametrize(
        "arguments", [[], ["m", "--port", "99999"], ["m", "--workers", "0"], ["m", "--api-key", ""]]
    )
    def test_wrong_use(self, arguments, capfd):
        code, error = run(*arguments, capfd=capfd)
        assert code == 2
        assert "Usage: sparsebert serve" in error

    def test_an_empty_variable_does_not_open_the_server(self, capfd, monkeypatch):
        monkeypatch.setenv("SPARSEBERT_API_KEY", "")
        code, error = run("m", capfd=capfd)
        assert code == 2
        assert "the key is empty" in " ".join(error.split())

    def test_without_the_extra(self, tiny_bert, capfd, monkeypatch):
        monkeypatch.setitem(sys.modules, "uvicorn", None)
        code, error = run(tiny_bert(), capfd=capfd)
        assert code == 1
        assert "needs the [serve] extra: pip install 'sparsebert[serve]'" in error


def test_help_names_every_variable(capfd: Any) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    out = "".join(capfd.readouterr().out.split())
    options = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", out)) - {"--help"}
    for option in options:
        if option.startswith("--no-"):
            continue
        name = option.removeprefix("--").replace("-", "_").upper()
        variable = {"THREADS": "NUM_THREADS"}.get(name, name)
        assert f"[envvar:SPARSEBERT_{variable}" in out, option


def test_documentation_names_every_option(capfd: Any) -> None:
    page = (CHECKOUT / "docs" / "serving.md").read_text()
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    for option in set(re.findall(r"--[a-z-]+", capfd.readouterr().out)) - {"--help"}:
        assert option in page, option
