"""HTTP/1.1 as raw bytes: what is a request, in which order, and how long a client may take."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("httptools")
httpx = pytest.importorskip("httpx")

from served import connect, is_closed, metric, request, responses, serving
from sparsebert.serving import connections, load_models

ONE = json.dumps({"inputs": "a"}).encode()
TWO = json.dumps({"inputs": ["a", "b"]}).encode()
H2C = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2_Settings": "AAEAAEAAAAIA"}


@pytest.fixture(scope="module")
def url(tiny_bert) -> Iterator[str]:
    with serving(load_models([f"tiny={tiny_bert()}"], threads=1)) as address:
        yield address


class TestUpgrade:
    """RFC 9110, 7.8: a server may ignore Upgrade, and then answers over the same protocol."""

    @pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0", "HTTP/2.0, IRC/6.9"])
    def test_it_is_ignored(self, url, protocol):
        with connect(url) as connection:
            for body in (TWO, ONE):  # the connection goes on
                connection.sendall(request("/embed", body, **(H2C | {"Upgrade": protocol})))
                ((status, answer),) = responses(connection, 1)
                assert (status, len(json.loads(answer))) == (200, len(json.loads(body)["inputs"]))

    def test_a_body_is_no_second_request(self, url):
        """Its bytes were read as one, and answered to whoever uses the connection next."""
        hidden = request("/health")
        with connect(url) as connection:
            connection.sendall(request("/embed", hidden, **H2C))
            connection.sendall(request("/info"))
            first, second = responses(connection, 2)
        assert first[0] == 400  # not JSON
        assert json.loads(second[1])["model_id"] == "tiny"

    def test_head_and_body_apart(self, url):
        whole = request("/embed", TWO, **H2C)
        for at in (10, len(whole) - len(TWO), len(whole) - 5):
            with connect(url) as connection:
                connection.sendall(whole[:at])
                time.sleep(0.05)
                connection.sendall(whole[at:])
                assert responses(connection, 1)[0][0] == 200

    def test_a_chunked_body(self, url):
        head = request("/embed", Transfer_Encoding="chunked", **H2C).replace(b"GET", b"POST")
        with connect(url) as connection:
            connection.sendall(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(TWO), TWO))
            assert len(json.loads(responses(connection, 1)[0][1])) == 2

    def test_behind_another_request(self, url):
        with connect(url) as connection:
            connection.sendall(request("/embed", ONE) + request("/embed", TWO, **H2C))
            found = responses(connection, 2)
        assert [len(json.loads(body)) for _, body in found] == [1, 2]

    def test_connect_is_refused(self, url):
        with connect(url) as connection:
            connection.sendall(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a\r\n\r\n")
            connection.sendall(request("/health"))  # what follows is for the other side
            assert [status for status, _ in responses(connection, 2)] == [501]

    @pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
    def test_curl_asks_for_http_2(self, url):
        given = ["curl", "-sS", "--http2", f"{url}/embed", "--data-binary", TWO.decode()]
        done = subprocess.run(given, capture_output=True, text=True, timeout=30, check=True)
        assert len(json.loads(done.stdout)) == 2


class TestOrder:
    def test_requests_sent_at_once_are_answered_in_order(self, url):
        with connect(url) as connection:
            bodies = [json.dumps({"inputs": ["a"] * (1 + i % 5)}).encode() for i in range(40)]
            connection.sendall(b"".join(request("/embed", body) for body in bodies))
            found = responses(connection, len(bodies))
        counts = [len(json.loads(body)) for _, body in found]
        assert counts == [1 + i % 5 for i in range(40)]

    def test_what_is_no_request_does_not_disturb_the_answer_before_it(self, url):
        with connect(url) as connection:
            connection.sendall(request("/embed", TWO) + b"\x00\x01 nonsense\r\n\r\n")
            found = responses(connection, 2)
        assert [status for status, _ in found] == [200]
        assert len(json.loads(found[0][1])) == 2

    @pytest.mark.parametrize(
        "lines",
        [
            b"Content-Length: 5\r\nTransfer-Encoding: chunked",
            b"Content-Length: 5\r\nContent-Length: 6",
            b"Transfer-Encoding: gzip",
            b"Content-Length: +5",
            b"Content-Length : 5",
        ],
    )
    def test_a_body_whose_end_is_uncertain(self, url, lines):
        """RFC 9112, 6.3: where two could differ about it, the connection ends."""
        with connect(url) as connection:
            connection.sendall(b"POST /embed HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n\r\n")
            connection.sendall(b"0\r\n\r\n" + request("/health"))
            assert [status for status, _ in responses(connection, 2)] == [400]

    def test_an_early_answer_does_not_make_the_body_a_request(self, model):
        with serving([model], api_key="k") as url, connect(url) as connection:
            whole = request("/embed", b"x" * 100_000)
            connection.sendall(whole[:200])
            assert responses(connection, 1)[0][0] == 401
            connection.sendall(whole[200:] + request("/health"))
            assert responses(connection, 1)[0][0] == 200


class TestLimits:
    def test_requests_are_read_as_fast_as_they_are_answered(self, url, monkeypatch):
        """Who sends thousands and waits for no answer does not fill the server's memory."""
        waiting = []
        real = connections.Connection.on_headers_complete

        def counted(connection: connections.Connection) -> None:
            real(connection)
            waiting.append(len(connection.pipeline))

        monkeypatch.setattr(connections.Connection, "on_headers_complete", counted)
        with connect(url) as connection:
            many = request("/v2/health/live", X="x" * 1000) * 5000

            def send() -> None:
                with contextlib.suppress(OSError):  # it is closed while it sends
                    connection.sendall(many)

            sender = threading.Thread(target=send)
            sender.start()
            read = b""
            while read.count(b"HTTP/1.1 200") < 500:
                part = connection.recv(1 << 16)
                assert part
                read += part
            connection.shutdown(socket.SHUT_RDWR)
            sender.join(30)
        assert max(waiting) < 1000  # those of one read, and not all that have been sent

    def test_a_head_without_end(self, url):
        with connect(url) as connection:
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                for _ in range(1000):
                    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 10_000)
                    time.sleep(0.001)
            assert is_closed(connection)

    def test_a_large_head_is_431(self, url):
        with connect(url) as connection:
            for _ in range(3):
                connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 30_000)
                time.sleep(0.05)
            assert responses(connection, 1)[0][0] == 431

    @pytest.mark.parametrize(
        ("sent", "status"),
        [
            (b"", []),
            (b"\r\n", [408]),
            (b"GET /health HT", [408]),
            (request("/health")[:-2], [408]),
            (request("/embed", ONE)[:-2], [408]),
            (request("/embed", ONE, **H2C)[:-2], [408]),
        ],
        ids=["nothing", "an empty line", "a part of a line", "a head", "a body", "an upgrade"],
    )
    def test_a_request_that_does_not_come(self, model, monkeypatch, sent, status):
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
        monkeypatch.setattr(connections, "BODY_SECONDS", 0.3)
        with serving([model]) as url, connect(url) as connection:
            connection.sendall(sent)
            assert [each for each, _ in responses(connection, 1)] == status
            assert is_closed(connection)

    def test_an_idle_connection_is_kept(self, model, monkeypatch):
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
        with serving([model]) as url, connect(url) as connection:
            connection.sendall(request("/embed", ONE))
            assert responses(connection, 1)[0][0] == 200
            time.sleep(2)
            connection.sendall(request("/embed", ONE))
            assert responses(connection, 1)[0][0] == 200

    def test_who_does_not_read_is_cut_off(self, model, monkeypatch):
        monkeypatch.setattr(connections, "WRITE_SECONDS", 0.3)
        limits = {"max_client_batch_size": 1000, "max_concurrent_requests": 1}
        with serving([model], **limits) as url, connect(url) as connection:
            body = json.dumps({"inputs": ["a b c " * 15] * 600}).encode()
            connection.sendall(request("/embed_all", body))
            end = time.monotonic() + 20
            while metric(url, "sparsebert_requests_in_flight") == 0:
                assert time.monotonic() < end
            while metric(url, "sparsebert_requests_in_flight"):
                assert time.monotonic() < end
                time.sleep(0.05)
            assert metric(url, "sparsebert_bytes_in_flight") == 0
            assert is_closed(connection)

    def test_who_does_not_read_gives_its_place_to_others(self, model):
        limits = {"max_client_batch_size": 1000, "max_concurrent_requests": 1}
        with serving([model], **limits) as url, connect(url) as connection:
            body = json.dumps({"inputs": ["a b c " * 15] * 600}).encode()
            connection.sendall(request("/embed_all", body))
            end = time.monotonic() + 20
            while httpx.post(f"{url}/embed", content=ONE).status_code != 429:
                assert time.monotonic() < end
            while httpx.post(f"{url}/embed", content=ONE).status_code != 200:
                assert time.monotonic() < end  # and not only when the time to read is over
                time.sleep(0.05)
            assert is_closed(connection)

    def test_of_too_many_connections_the_idlest_goes(self, model, monkeypatch):
        from sparsebert.serving import server

        monkeypatch.setattr(server, "_MAX_CONNECTIONS", 20)
        with serving([model]) as url:
            silent = [connect(url) for _ in range(60)]
            with connect(url) as good:
                good.sendall(request("/embed", ONE))
                assert responses(good, 1)[0][0] == 200
            open_still = [each for each in silent if not is_closed(each, 0.01)]
            assert open_still == silent[-len(open_still) :]
            assert 10 <= len(open_still) <= 20
            for each in silent:
                each.close()
