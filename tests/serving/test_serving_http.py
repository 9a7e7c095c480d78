"""What HTTP clients and proxies expect: compression, HEAD, paths, keys, sockets, a stop."""

from __future__ import annotations

import gzip
import json
import re
import signal
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")

from test_serving_command import started

from served import serving
from sparsebert.errors import InputError
from sparsebert.serving import load_models
from sparsebert.serving.server import listen

MANY = json.dumps({"inputs": ["the ferry leaves at noon"] * 30}).encode()


@pytest.fixture(scope="module")
def client(tiny_bert) -> Iterator[Any]:
    with (
        serving(load_models([f"tiny={tiny_bert()}"], threads=1), payload_limit=10_000) as url,
        httpx.Client(base_url=url, headers={"Accept-Encoding": "identity"}) as made,
    ):
        yield made


class TestCompressedBodies:
    @pytest.mark.parametrize(
        ("coding", "content"),
        [
            ("gzip", gzip.compress(MANY)),
            ("GZip", gzip.compress(MANY)),
            ("x-gzip", gzip.compress(MANY)),
            ("deflate", zlib.compress(MANY)),
            ("gzip", gzip.compress(MANY[:50]) + gzip.compress(MANY[50:])),
            ("identity", MANY),
        ],
        ids=["gzip", "upper case", "x-gzip", "deflate", "two members", "identity"],
    )
    def test_they_are_decoded(self, client, coding, content):
        response = client.post("/embed", content=content, headers={"Content-Encoding": coding})
        assert response.json() == client.post("/embed", content=MANY).json()

    @pytest.mark.parametrize(
        ("status", "coding", "content"),
        [
            (400, "gzip", MANY),
            (400, "gzip", gzip.compress(MANY)[:-9]),
            (400, "gzip", gzip.compress(MANY) + b"more"),
            (400, "gzip", gzip.compress(b"")),
            (400, "deflate", b"\xff"),
            (413, "gzip", gzip.compress(b" " * 10_001)),
            (413, "gzip", gzip.compress(b" " * 6000) * 2),
            (413, "gzip", gzip.compress(b" " * 5_000_000)),
            (413, "identity", b" " * 10_001),
            (415, "br", MANY),
            (415, "gzip, gzip", gzip.compress(gzip.compress(MANY))),
        ],
        ids=range(11),
    )
    def test_what_is_refused(self, client, status, coding, content):
        response = client.post("/embed", content=content, headers={"Content-Encoding": coding})
        assert response.status_code == status, response.text
        if status == 415:  # RFC 9110, 15.5.16
            assert response.headers["accept-encoding"] == "gzip, deflate"

    def test_a_bomb_takes_no_memory(self, monkeypatch):
        """A body of some kilobytes may be gigabytes: only what is allowed is ever decoded."""
        from sparsebert.serving.errors import RequestError
        from sparsebert.serving.json_route import _decoded

        made = 0
        real = zlib.decompressobj

        class Watched:
            eof = False

            def __init__(self, **given: Any) -> None:
                self._real = real(**given)

            def decompress(self, raw: bytes, most: int) -> bytes:
                nonlocal made
                found = self._real.decompress(raw, most)
                made += len(found)
                return found

        monkeypatch.setattr(zlib, "decompressobj", Watched)
        with pytest.raises(RequestError, match="larger than 1000 bytes"):
            _decoded(gzip.compress(b"\0" * 50_000_000), 1000)
        assert made <= 1 << 16


class TestCompressedAnswers:
    @pytest.mark.parametrize(
        ("accepted", "compressed"),
        [
            ("gzip", True),
            ("deflate, gzip;q=0.5, br", True),
            ("GZIP", True),
            ("identity", False),
            ("deflate, br", False),
            ("gzip;q=0", False),
            ("gzip; q=0.000, deflate", False),
            ("gzipped", False),
        ],
    )
    def test_for_who_accepts_it(self, client, accepted, compressed):
        plain = client.post("/embed", content=MANY)
        response = client.post("/embed", content=MANY, headers={"Accept-Encoding": accepted})
        assert response.headers.get("content-encoding") == ("gzip" if compressed else None)
        assert response.json() == plain.json()
        length = int(response.headers["content-length"])
        assert length < len(plain.content) / 2 if compressed else length == len(plain.content)

    def test_small_ones_are_not_worth_it(self, client):
        response = client.get("/health", headers={"Accept-Encoding": "gzip"})
        assert "content-encoding" not in response.headers


class TestMethodsAndPaths:
    @pytest.mark.parametrize(
        "path",
        ["/health", "/info", "/", "/v1/models", "/v2", "/docs", "/page/page.css", "/metrics"],
    )
    def test_head_is_get_without_the_body(self, client, path):
        """RFC 9110, 9.3.2."""
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == got.headers["content-type"]
        if path != "/metrics":  # which it changes
            assert head.headers["content-length"] == got.headers["content-length"]

    def test_head_of_what_is_no_get(self, client):
        assert client.head("/embed").status_code == client.get("/embed").status_code == 405
        assert client.head("/nothing").status_code == 404

    @pytest.mark.parametrize("path", ["/embed/", "/v1/embeddings/", "/embed//"])
    def test_a_slash_at_the_end_makes_no_difference(self, client, path):
        """A redirect would name http:// and this host, behind a proxy that is neither."""
        body = {"input" if "v1" in path else "inputs": "a"}
        response = client.post(path, json=body, follow_redirects=False)
        assert response.status_code == 200
        assert client.get("/v1/models/", follow_redirects=False).status_code == 200
        assert client.get("/health/", follow_redirects=False).status_code == 200

    def test_the_root_path(self, model):
        """Whether the proxy cuts its path off or passes it on."""
        with (
            serving([model], root_path="/encoder", api_key="k") as url,
            httpx.Client(base_url=url, headers={"Authorization": "Bearer k"}) as client,
        ):
            for prefix in ("", "/encoder"):
                assert client.post(f"{prefix}/embed", json={"inputs": "a"}).status_code == 200
                assert client.get(f"{prefix}/v2/models/tiny").status_code == 200
                error = client.post(f"{prefix}/v1/embeddings", json={}).json()["error"]
                assert error["type"] == "invalid_request_error"  # OpenAI's own form
                assert httpx.get(f"{url}{prefix}/health").status_code == 200
                assert httpx.get(f"{url}{prefix}/info").status_code == 401
                page = client.get(f"{prefix}/docs").text
                assert "'/encoder/openapi.json'" in page
                assert "/encoder/static-offline-docs/swagger-ui-bundle.js" in page
                assert client.get(f"{prefix}/openapi.json").json()["servers"] == [
                    {"url": "/encoder"}
                ]
            assert client.get("/encoder").status_code == 200  # the page
            assert client.get("/encoders/health").status_code == 404


class TestKey:
    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
    def test_the_scheme_has_any_case(self, model, scheme):
        """RFC 9110, 11.1."""
        with serving([model], api_key="Key") as url:
            headers = {"Authorization": f"{scheme} Key"}
            assert httpx.get(f"{url}/info", headers=headers).status_code == 200
            for wrong in (f"{scheme} key", f"{scheme}Key", "Key", f"{scheme} Key x"):
                headers = {"Authorization": wrong}
                assert httpx.get(f"{url}/info", headers=headers).status_code == 401

    def test_docs_ask_for_it(self, model):
        with serving([model], api_key="k") as url:
            schema = httpx.get(f"{url}/openapi.json").json()
        (name,) = schema["components"]["securitySchemes"]
        assert schema["components"]["securitySchemes"][name]["scheme"] == "bearer"
        assert schema["paths"]["/embed"]["post"]["security"] == [{name: []}]
        assert "security" not in schema["paths"]["/health"]["get"]

    def test_docs_need_no_internet(self, model):
        with serving([model], api_key="k") as url:
            page = httpx.get(f"{url}/docs").text
            files = re.findall(r'(?:src|href)="([^"]+)"', page)
            assert len(files) >= 3
            for file in files:
                assert "://" not in file
                assert httpx.get(f"{url}/{file.lstrip('/')}").status_code == 200


class TestSockets:
    def test_both_protocols_on_all_addresses(self):
        if not socket.has_dualstack_ipv6():
            pytest.skip("this system has no IPv6")
        with listen("::", 0) as listener:
            port = listener.getsockname()[1]
            for address in ("127.0.0.1", "::1"):
                with socket.create_connection((address, port), timeout=10):
                    pass

    def test_a_socket_in_the_file_system(self, tiny_bert, tmp_path):
        path = tmp_path / "sparsebert.sock"
        with socket.socket(socket.AF_UNIX) as stale:  # a server that was killed left it there
            stale.bind(str(path))
        with started(tiny_bert(), "--host", f"unix:{path}") as (process, url, _):
            assert url == f"unix:{path}"
            transport = httpx.HTTPTransport(uds=str(path))
            with httpx.Client(transport=transport, base_url="http://x") as client:
                assert client.post("/embed", json={"inputs": "a"}).status_code == 200
            with pytest.raises(InputError, match="address already in use"):
                listen(f"unix:{path}", 0)
            process.terminate()
            assert process.wait(20) == 0
        assert not path.exists()

    def test_no_other_file_is_removed(self, tmp_path):
        path = tmp_path / "notes"
        path.write_text("mine")
        with pytest.raises(InputError, match="cannot listen on unix:"):
            listen(f"unix:{path}", 0)
        assert path.read_text() == "mine"
        with pytest.raises(InputError, match="no such file"):
            listen(f"unix:{tmp_path / 'nowhere' / 'x.sock'}", 0)


class TestStop:
    def test_a_rolling_update_loses_nothing(self, tiny_bert):
        """A balancer that asks /health, and clients that keep their connections."""
        folder = tiny_bert()
        with started(folder, "--threads", 1, "--shutdown-delay", 2) as (first, url, _):
            statuses: list[int] = []
            closing: list[bool] = []
            done = threading.Event()

            def ask() -> None:
                with httpx.Client(base_url=url) as client:
                    while not done.is_set():
                        response = client.post("/embed", json={"inputs": "a"})
                        statuses.append(response.status_code)
                        closing.append(response.headers.get("connection") == "close")
                        if closing[-1] and httpx.get(f"{url}/health").status_code == 503:
                            return  # the balancer has seen it: no more from here
                        time.sleep(0.01)

            askers = [threading.Thread(target=ask) for _ in range(4)]
            for each in askers:
                each.start()
            while len(statuses) < 20:
                time.sleep(0.01)
            before = len(statuses)
            first.send_signal(signal.SIGTERM)
            for each in askers:
                each.join(20)
            done.set()
            assert set(statuses) == {200}
            assert len(statuses) > before
            assert sum(closing) == 4  # each client's last
            assert first.poll() is None
            assert first.wait(30) == 0

    def test_a_second_interrupt_ends_the_delay(self, tiny_bert):
        with started(tiny_bert(), "--shutdown-delay", 600) as (process, url, _):
            assert httpx.get(f"{url}/health").status_code == 200
            process.send_signal(signal.SIGINT)
            for line in process.stderr:
                if "event=stopping" in line:
                    break
            assert httpx.get(f"{url}/health").status_code == 503
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0

    def test_idle_connections_are_kept_as_long_as_said(self, tiny_bert):
        given = ("--keep-alive", 1, "--threads", 1)
        with started(tiny_bert(), *given) as (_, url, _), httpx.Client(base_url=url) as client:
            assert client.get("/health").status_code == 200
            (pooled,) = client._transport._pool.connections
            end = time.monotonic() + 20
            while not pooled._connection._network_stream.get_extra_info("is_readable"):
                assert time.monotonic() < end
                time.sleep(0.1)


def test_the_file_limit_is_raised() -> None:
    resource = pytest.importorskip("resource")
    from sparsebert.serving.server import raise_file_limit

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(500, before[1]), before[1]))
        raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


class TestMetrics:
    @pytest.fixture(scope="class")
    def text(self, model) -> str:
        with serving([model]) as url, httpx.Client(base_url=url) as client:
            client.post("/embed", json={"inputs": "a"})
            client.post("/embed", json={"inputs": ["a", "b c"]})
            client.post("/v1/embeddings", json={"input": ["a", "b", "c"]})
            client.post("/embed", json={"inputs": "a", "normalize": "no"})
            client.post("/tokenize", json={"inputs": "a"})
            return client.get("/metrics").text

    def test_of_the_process(self, text):
        if not Path("/proc/self/stat").exists():
            pytest.skip("prometheus_client reads /proc")
        for name in ("resident_memory_bytes", "cpu_seconds_total", "open_fds", "max_fds"):
            assert re.search(rf"^process_{name} [\d.e+]+$", text, re.MULTILINE), name

    def test_under_text_embeddings_inferences_names(self, text):
        """As its router/src/http/server.rs and core/src/{infer,queue}.rs record them."""
        values = dict(re.findall(r"^(te_\S+) (\S+)$", text, re.MULTILINE))
        # What is refused before its texts are counted is no batch.
        assert float(values['te_request_count{method="single"}']) == 2
        assert float(values['te_request_count{method="batch"}']) == 2
        assert float(values['te_request_success{method="single"}']) == 1
        assert float(values['te_request_success{method="batch"}']) == 2
        assert float(values['te_request_failure{err="validation"}']) == 1
        assert float(values["te_embed_count"]) == float(values["te_embed_success"]) == 6
        assert float(values["te_request_input_length_count"]) == 6
        assert float(values["te_request_input_length_sum"]) == 6 * 3 + 1  # with [CLS] and [SEP]
        assert float(values["te_batch_next_tokens_sum"]) == 19
        assert float(values["te_batch_next_size_sum"]) == 6
        assert float(values["te_queue_size"]) == 0
        for step in ("", "_tokenization", "_queue", "_inference"):
            assert float(values[f"te_request{step}_duration_count"]) == 3
