"""A real server for the tests: uvicorn in a thread, on a free port of loopback."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# A small model for each head, by the name under which it is served.
HEADS = {
    "embedder": {"head": "encoder"},
    "classifier": {"head": "sequence-classification", "num_labels": 3},
    "reranker": {"head": "sequence-classification", "num_labels": 1},
    "answerer": {"head": "question-answering"},
    "tagger": {"head": "token-classification"},
}


@contextmanager
def serving(models: Any, **options: Any) -> Iterator[str]:
    """The URL of a server of ``models`` (`ServedModel`s); ``options`` are `ServingOptions`'."""
    from sparsebert.serving import ServingOptions, create_app
    from sparsebert.serving.server import listen, make_server

    app = create_app(models, ServingOptions(**options))
    listener = listen("127.0.0.1", 0)
    server = make_server(app, timeout_graceful_shutdown=5)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        end = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < end
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
        assert not thread.is_alive()


def ask(client: Any, path: str, **body: Any) -> Any:
    """What the route answers."""
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def refusal(client: Any, status: int, path: str, **body: Any) -> str:
    """The type and the message of a refused request."""
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    found = response.json()
    assert set(found) == {"error", "error_type"}
    assert found["error"][-1] == "."
    return f"{found['error_type']}: {found['error']}"


def close(found: Any, expected: Any) -> bool:
    """Equal but for the last bits: fp32 pooling sums in an order that depends on the batch."""
    import numpy as np

    return np.allclose(np.array(found, np.float32), expected, rtol=0, atol=2e-7)


def metric(url: str, name: str) -> float:
    """The value of a metric without labels."""
    import httpx

    (found,) = re.findall(rf"^{name} (\S+)$", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    return float(found)


def connect(url: str) -> socket.socket:
    """A connection to the server, for what no client would send."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def request(path: str, content: bytes = b"", **headers: str) -> bytes:
    """The bytes of a POST, or of a GET where there is no content."""
    lines = [f"{'POST' if content else 'GET'} {path} HTTP/1.1", "Host: x"]
    if content:
        lines.append(f"Content-Length: {len(content)}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def responses(connection: socket.socket, count: int) -> list[tuple[int, bytes]]:
    """Status and body of the next answers; fewer where the server closes the connection."""
    found: list[tuple[int, bytes]] = []
    buffer = b""
    while len(found) < count:
        head, end, rest = buffer.partition(b"\r\n\r\n")
        length = int((re.findall(rb"content-length: (\d+)", head.lower()) or [b"0"])[0])
        if end and len(rest) >= length:
            found.append((int(head.split(b" ")[1]), rest[:length]))
            buffer = rest[length:]
            continue
        try:
            part = connection.recv(1 << 16)
        except ConnectionResetError:
            part = b""
        if not part:
            return found
        buffer += part
    assert not buffer, buffer[:200]  # nobody asked for more
    return found


def is_closed(connection: socket.socket, seconds: float = 10) -> bool:
    """Whether the server closes the connection within so many seconds, whatever it sends before."""
    connection.settimeout(seconds)
    try:
        while connection.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True
