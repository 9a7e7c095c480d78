"""A small server with the routes of the Hugging Face hub that a push uses, for tests."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StandInHub:
    """What was asked of it: ``requests`` (method, path, token) and each ``commit``'s files.

    ``public`` repositories are there already; ``refuse`` makes it answer with that status.
    """

    def __init__(self) -> None:
        self.address = ""
        self.requests: list[tuple[str, str, str]] = []
        self.created: list[dict[str, Any]] = []
        self.commits: list[dict[str, bytes]] = []
        self.messages: list[str] = []
        self.public: set[str] = set()
        self.refuse = 0

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and JSON of the answer."""
        if self.refuse:
            return self.refuse, {"error": "you may not"}
        route = path.partition("?")[0].removeprefix("/api/")
        if route == "repos/create":
            asked = json.loads(body)
            self.created.append(asked)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            status = 409 if name in self.public else 200
            return status, {"url": f"{self.address}/{name}", "id": name, "name": name}
        if route == "validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in route:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return 200, {"files": files}
        if "/commit/" in route:
            lines = [json.loads(line) for line in body.splitlines()]
            self.messages.append(lines[0]["value"]["summary"])
            self.commits.append(
                {
                    line["value"]["path"]: base64.b64decode(line["value"]["content"])
                    for line in lines[1:]
                }
            )
            pull = f"{self.address}/o/m/discussions/1" if "create_pr=1" in path else None
            url = f"{self.address}/o/m/commit/0123"
            return 200, {"commitUrl": url, "commitOid": "0123", "pullRequestUrl": pull}
        if method == "GET" and route.startswith("models/"):
            name = route.removeprefix("models/")
            return 200, {"id": name, "private": name not in self.public, "siblings": []}
        return 404, {"error": f"{method} {path} is not part of this stand-in"}


@contextmanager
def stand_in_hub() -> Iterator[StandInHub]:
    """One that listens on a free port of this machine."""
    hub = StandInHub()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.requests.append((self.command, self.path, self.headers.get("authorization", "")))
            status, document = hub.answer(self.command, self.path, body)
            text = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = _answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
