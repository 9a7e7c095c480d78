"""Admission control: slow clients are evicted, and after each attack the server is as before."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")

from test_serving_command import started

from served import connect, metric, request
from sparsebert.serving import admission
from sparsebert.serving.admission import Admission, Reservation
from sparsebert.serving.errors import RequestError


class Client:
    """A reservation, and whether its connection has been closed."""

    def __init__(self, admission: Admission) -> None:
        self.closed = False
        self.reservation = Reservation(admission, self.close)

    def close(self) -> None:
        self.closed = True


class TestAdmission:
    @pytest.fixture
    def few(self, monkeypatch) -> Callable[..., list[Client]]:
        monkeypatch.setattr(admission, "_GRACE", -1.0)  # nobody has any
        self.admission = Admission(max_requests=2, max_bytes=100)
        return lambda count: [Client(self.admission) for _ in range(count)]

    def test_slots(self, few):
        first, second, third = few(3)
        first.reservation.acquire_slot()
        second.reservation.acquire_slot()
        with pytest.raises(RequestError, match="2 requests are being answered") as refused:
            third.reservation.acquire_slot()
        assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
        first.reservation.release()
        third.reservation.acquire_slot()
        assert self.admission.in_flight == 2
        for client in (first, second, third, third):  # twice is no harm
            client.reservation.release()
        assert self.admission.in_flight == 0

    def test_who_does_not_read_loses_its_slot(self, few):
        first, second, third = few(3)
        first.reservation.acquire_slot()
        second.reservation.acquire_slot()
        with second.reservation.waiting_for_client(), first.reservation.waiting_for_client():
            third.reservation.acquire_slot()
            assert (first.closed, second.closed) == (False, True)
        assert self.admission.in_flight == 2
        second.reservation.reserve(5)  # it goes on for a moment, and counts no more
        assert self.admission.bytes == 0

    def test_who_uploads_has_no_slot_to_lose(self, few):
        first, second, third, slow = few(4)
        first.reservation.acquire_slot()
        second.reservation.acquire_slot()
        with slow.reservation.waiting_for_client(), pytest.raises(RequestError):
            third.reservation.acquire_slot()
        assert not slow.closed

    def test_bytes(self, few):
        first, second, third = few(3)
        first.reservation.reserve(60)
        with pytest.raises(RequestError, match="the server is overloaded") as refused:
            second.reservation.reserve(41)
        assert refused.value.status == 429
        second.reservation.reserve(40)
        with first.reservation.waiting_for_client():
            third.reservation.reserve(1)
        assert first.closed
        assert self.admission.bytes == 41
        second.reservation.free(30)
        assert self.admission.bytes == 11

    def test_more_bytes_than_there_are(self, few):
        (client,) = few(1)
        client.reservation.reserve(60)
        with pytest.raises(RequestError, match="send fewer or shorter texts") as refused:
            client.reservation.reserve(41)
        assert refused.value.status == 413
        client.reservation.reserve_response(1000)  # it is there already
        client.reservation.release()
        assert self.admission.bytes == 0

    def test_a_moment_is_not_slow(self, few, monkeypatch):
        monkeypatch.setattr(admission, "_GRACE", 60.0)
        first, second = few(2)
        first.reservation.reserve(60)
        with first.reservation.waiting_for_client(), pytest.raises(RequestError):
            second.reservation.reserve(60)
        assert not first.closed


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc: memory is not told")
class TestAttacks:
    """After each a good request is answered, and memory is within 50 MiB of what it was before."""

    @pytest.fixture(scope="class")
    def server(self, tiny_bert) -> Iterator[Any]:
        """A process of its own, for its memory, allowed 1,024 files as is usual."""
        given = ("--threads", 1, "--max-bytes-in-flight", 33_000_000)
        more = ("--max-client-batch-size", 1000)
        with started(tiny_bert(), *given, *more, before=few_files) as (process, url, _):
            log = threading.Thread(target=process.stderr.read)  # a full pipe would stop it
            log.start()
            yield process, url
            process.kill()
            log.join()

    @pytest.fixture
    def attacked(self, server) -> Iterator[Callable[[int, bytes], list[socket.socket]]]:
        """``attacked(count, sent)`` opens connections that send this and never read."""
        process, url = server
        made: list[socket.socket] = []

        def attack(count: int, sent: bytes) -> list[socket.socket]:
            for _ in range(count):
                made.append(connect(url))
                made[-1].sendall(sent)
            return made

        good(url)
        before = resident(process.pid)
        try:
            yield attack
            time.sleep(1)  # nobody counts as slow before
            good(url)
        finally:
            for connection in made:
                connection.close()
        end = time.monotonic() + 10
        while resident(process.pid) - before > 50 << 20:
            assert time.monotonic() < end, (resident(process.pid) - before) >> 20
            time.sleep(0.1)

    def test_silence(self, attacked):
        attacked(1100, b"")

    def test_a_body_of_one_byte(self, attacked):
        attacked(600, request("/embed", b"x" * 100)[:-99])

    def test_most_of_a_large_body(self, attacked):
        attacked(100, request("/embed", b" " * 1_900_000)[:-1000])

    def test_answers_that_nobody_reads(self, attacked, server):
        texts = ["a b c d e f g h " * 4] * 400
        attacked(12, request("/embed_all", json.dumps({"inputs": texts}).encode()))
        end = time.monotonic() + 60
        while metric(server[1], "sparsebert_waiting_tokens"):
            assert time.monotonic() < end
            time.sleep(0.1)

    def test_a_head_without_end(self, attacked):
        attacked(300, b"GET / HTTP/1.1\r\nX: " + b"a" * 60_000)


def few_files() -> None:
    """In the server's process, before it begins."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def good(url: str) -> None:
    """A small request, which must be answered at the first try."""
    assert httpx.post(f"{url}/embed", json={"inputs": "a"}, timeout=30).status_code == 200
