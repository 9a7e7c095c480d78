"""What the server refuses and survives: too much, too many, malformed, impatient, without a key."""

from __future__ import annotations

import gc
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("orjson")
httpx = pytest.importorskip("httpx")

from sentences import SENTENCES
from served import metric, serving
from sparsebert.engine import Encoder
from sparsebert.errors import EngineError
from sparsebert.serving import ServedModel, ServingOptions, load_models
from sparsebert.serving.service import Service


def another(model: ServedModel) -> ServedModel:
    """The same for another server."""
    return ServedModel(model.name, model.replicas)


@pytest.fixture(scope="module")
def client(model) -> Iterator[Any]:
    options = {"payload_limit": 4000, "max_input_characters": 900, "max_client_batch_size": 4}
    with (
        serving([another(model)], **options) as url,
        httpx.Client(base_url=url, timeout=30) as made,
    ):
        yield made


class Held:
    """Engine calls that wait until they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.begun = threading.Semaphore(0)
        self.sequences: list[int] = []
        real = Encoder.pooled

        def pooled(encoder: Encoder, ids: Any, types: Any, offsets: Any, *rest: Any) -> Any:
            self.sequences.append(len(offsets) - 1)
            self.begun.release()
            assert self.go.wait(30)
            return real(encoder, ids, types, offsets, *rest)

        monkeypatch.setattr(Encoder, "pooled", pooled)


@pytest.fixture
def held(monkeypatch) -> Iterator[Held]:
    made = Held(monkeypatch)
    yield made
    made.go.set()


def raw(client: Any, content: bytes, headers: dict[str, str] | None = None) -> bytes:
    """A whole answer to bytes sent as they are."""
    host, port = client.base_url.host, client.base_url.port
    with socket.create_connection((host, port), timeout=30) as connection:
        lines = {"Host": "x", "Connection": "close", "Content-Length": str(len(content))}
        lines |= headers or {}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        connection.sendall(f"POST /embed HTTP/1.1\r\n{head}\r\n".encode() + content)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


class TestSizes:
    @pytest.mark.parametrize(
        ("status", "body", "said"),
        [
            (200, {"inputs": ["a"] * 4}, ""),
            (413, {"inputs": ["a"] * 5}, "inputs has 5 entries: a request may have at most 4"),
            (200, {"inputs": "a " * 20 + " " * 860}, ""),
            (
                413,
                {"inputs": ["a", "b" * 901]},
                "inputs[1] has 901 characters: a text may have at most 900",
            ),
            (413, {"inputs": "a", "padding": "p" * 4000}, "larger than 4000 bytes"),
            (413, {"inputs": "a " * 100}, "inputs is longer than the 64 tokens"),
        ],
        ids=["four texts", "five texts", "900", "901 characters", "bytes", "tokens"],
    )
    def test_limits(self, client, status, body, said):
        response = client.post("/embed", json=body)
        assert response.status_code == status
        assert said in response.json()["error"] if said else True

    def test_a_chunked_body_is_cut_off_while_it_comes(self, client):
        """Nobody says how long it is, and the client would go on for ever."""
        host, port = client.base_url.host, client.base_url.port
        with socket.create_connection((host, port), timeout=30) as connection:
            connection.sendall(
                b"POST /embed HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            chunk = b"400\r\n" + b"a" * 1024 + b"\r\n"
            try:
                for _ in range(1000):
                    connection.sendall(chunk)
                    time.sleep(0.001)
            except OSError:  # it has been closed
                pass
            else:
                pytest.fail("the server read a megabyte of a body that may have 4000 bytes")

    def test_a_chunked_body_that_fits(self, client):
        parts = iter([b'{"inputs":', b' "a"}'])
        assert client.post("/embed", content=parts).status_code == 200

    def test_a_small_chunked_body_too_many(self, client):
        parts = iter([b'{"inputs": "a", "padding": "', b"p" * 3990, b'"}'])
        response = client.post("/embed", content=parts)
        assert response.status_code == 413
        assert response.headers["connection"] == "close"

    def test_openai_hears_of_it_in_its_own_form(self, client):
        response = client.post("/v1/embeddings", json={"input": ["a"] * 5})
        assert response.status_code == 400
        error = response.json()["error"]
        assert (error["code"], error["param"]) == ("array_above_max_length", "input")
        response = client.post("/v1/embeddings", json={"input": "a", "padding": "p" * 4000})
        assert (response.status_code, response.json()["error"]["code"]) == (
            413,
            "request_too_large",
        )

    def test_every_route_counts(self, client):
        for path, body in {
            "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b"] * 5}},
            "/tokenize": {"inputs": ["a"] * 5},
            "/decode": {"ids": [[1]] * 5},
            "/embed_all": {"inputs": ["a"] * 5},
            "/": {"inputs": ["a"] * 5},
        }.items():
            assert client.post(path, json=body).status_code == 413, path
        for path, body in {
            "/similarity": {"inputs": {"source_sentence": "b" * 901, "sentences": ["b"]}},
            "/tokenize": {"inputs": "b" * 901},
        }.items():
            assert client.post(path, json=body).status_code == 413, path


HOSTILE = {
    "nothing": (400, b""),
    "half": (400, b'{"inputs": "a'),
    "not an object": (422, b'["a"]'),
    "a number": (422, b"1"),
    "null": (422, b'{"inputs": null}'),
    "a huge whole number": (400, b'{"inputs": [%s]}' % (b"9" * 3000)),
    "a huge float": (400, b'{"inputs": "a", "dimensions": 1e400}'),
    "a negative": (422, b'{"inputs": "a", "dimensions": -1}'),
    "not a number": (400, b'{"inputs": [NaN]}'),
    "deep nesting": (400, b'{"inputs": ' + b"[" * 1900 + b"]" * 1900 + b"}"),
    "less deep nesting": (422, b'{"inputs": ' + b"[" * 500 + b"]" * 500 + b"}"),
    "deep nesting elsewhere": (
        200,
        b'{"inputs": "a", "options": ' + b"[" * 500 + b"]" * 500 + b"}",
    ),
    "only NUL": (200, b'{"inputs": "\\u0000\\u0000"}'),
    "NUL inside": (200, b'{"inputs": "a\\u0000b"}'),
    "a bare NUL": (400, b'{"inputs": "a\x00b"}'),
    "half of a surrogate pair": (400, b'{"inputs": "\\ud800"}'),
    "encoded surrogate": (400, b'{"inputs": "\xed\xa0\x80"}'),
    "not UTF-8": (400, b'{"inputs": "\xff\xfe"}'),
    "UTF-16": (400, '{"inputs": "a"}'.encode("utf-16")),
    "mixed types": (422, b'{"inputs": ["a", 1, null, {}, true]}'),
    "booleans as ids": (422, b'{"inputs": [true, false]}'),
    "whole floats as ids": (200, b'{"inputs": [1.0, 2.0]}'),  # in JSON Schema they are integers
    "floats as ids": (422, b'{"inputs": [1.0, 2.5]}'),
    "negative ids": (422, b'{"inputs": [-1]}'),
    "ids out of the table": (422, b'{"inputs": [2147483648]}'),
    "empty ids": (422, b'{"inputs": [[]]}'),
    "words for switches": (422, b'{"inputs": "a", "normalize": "true"}'),
    "an unknown side": (422, b'{"inputs": "a", "truncation_direction": "up"}'),
    "a model that is a list": (422, b'{"inputs": "a", "model": ["tiny"]}'),
    "the same key twice": (200, b'{"inputs": 1, "inputs": "a"}'),
    "right to left marks": (200, '{"inputs": "\u202eabc"}'.encode()),
    "only a joiner": (200, '{"inputs": "\u200d"}'.encode()),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.filterwarnings("error")
def test_hostile_bodies(client, name):
    status, content = HOSTILE[name]
    answer = raw(client, content)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    if status != 200:
        found = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert set(found) == {"error", "error_type"}
        assert len(found["error"]) < 300
    assert client.get("/health").status_code == 200


def test_hostile_headers(client):
    good = b'{"inputs": "a"}'
    assert raw(client, good, {"Content-Type": "text/plain"}).startswith(b"HTTP/1.1 200")
    assert raw(client, good, {"Authorization": "Bearer \xff"}).startswith(b"HTTP/1.1 200")
    assert raw(client, good, {"Content-Length": "9" * 18}).startswith(b"HTTP/1.1 413")
    assert raw(client, b"0\r\n\r\n", {"Content-Length": "", "Transfer-Encoding": "chunked"})
    assert b" 400 " in raw(client, good, {"Content-Length": "-5"}).split(b"\r\n")[0]
    assert client.get("/health").status_code == 200


def test_no_message_repeats_what_was_sent(client):
    secret = "zanzibar"
    for body in (
        {"inputs": [{secret: secret}]},
        {"inputs": {secret: 1}},
        {"inputs": "a", "parameters": {secret: secret}},
        {"inputs": "a", "prompt_name": secret},
        {"inputs": "a", "normalize": secret},
        {"inputs": secret * 200},
        {"inputs": secret, "truncation_direction": secret},
    ):
        response = client.post("/embed", json=body)
        assert response.status_code >= 400
        assert secret not in response.text


def test_logs_hold_no_text(model, caplog):
    with caplog.at_level(logging.INFO, "sparsebert.serving"), serving([model]) as url:
        httpx.post(f"{url}/embed", json={"inputs": "zanzibar"})
        httpx.get(f"{url}/zanzibar?zanzibar=1")
    lines = [(each.getMessage(), getattr(each, "fields", {})) for each in caplog.records]
    asked = [fields for said, fields in lines if said == "request"]
    assert (asked[0]["route"], asked[0]["status"], asked[0]["texts"]) == ("/embed", 200, 1)
    assert asked[1]["status"] == 404
    assert "zanzibar" not in repr(lines)


class TestLoad:
    def test_only_429_above_the_limit(self, model, held):
        with serving([model], max_concurrent_requests=5) as url:

            def one(_: int) -> Any:
                return httpx.post(f"{url}/embed", json={"inputs": "a"}, timeout=30)

            with ThreadPoolExecutor(24) as pool:
                waiting = [pool.submit(one, place) for place in range(24)]
                end = time.monotonic() + 20
                while sum(each.done() for each in waiting) < 19 and time.monotonic() < end:
                    time.sleep(0.01)
                refused = [each.result() for each in waiting if each.done()]
                held.go.set()
                answers = [each.result() for each in waiting]
            assert len(refused) == 19
            for response in refused:
                assert response.status_code == 429
                assert response.headers["retry-after"] == "1"
                assert response.json()["error_type"] == "Overloaded"
            assert sorted(each.status_code for each in answers) == [200] * 5 + [429] * 19
            assert one(0).status_code == 200  # every place was given back

    def test_places_are_given_back_whatever_happens(self, model):
        with (
            serving([model], max_concurrent_requests=1) as url,
            httpx.Client(base_url=url) as client,
        ):
            for body in (b"{", b"[]", b'{"inputs": 5}', b'{"inputs": ""}', b'{"inputs": "a"}') * 3:
                assert client.post("/embed", content=body).status_code != 429

    def test_many_clients_within_the_limit_all_get_their_answer(self, model):
        with serving([model]) as url:

            def one(place: int) -> int:
                text = SENTENCES[place % len(SENTENCES)]
                with httpx.Client(base_url=url, timeout=30) as client:
                    return sum(
                        client.post("/embed", json={"inputs": text}).status_code for _ in range(3)
                    )

            with ThreadPoolExecutor(32) as pool:
                assert set(pool.map(one, range(32))) == {600}

    def test_what_waits_goes_together(self, model, held):
        """The first request finds the engine idle and goes alone; those behind it share a batch."""
        with serving([model]) as url, ThreadPoolExecutor(9) as pool:
            first = pool.submit(httpx.post, f"{url}/embed", json={"inputs": "a"}, timeout=30)
            assert held.begun.acquire(timeout=20)
            rest = [
                pool.submit(httpx.post, f"{url}/embed", json={"inputs": ["b", "c"]}, timeout=30)
                for _ in range(8)
            ]
            wait_for_tokens(url, 48)
            held.go.set()
            assert {each.result().status_code for each in [first, *rest]} == {200}
        assert held.sequences == [1, 16]

    def test_every_worker_takes_a_part_of_a_large_request(self, tiny_bert, held):
        loaded = load_models([f"tiny={tiny_bert()}"], threads=1, workers=2)
        with serving(loaded, max_batch_tokens=loaded[0].model.max_length) as url:
            texts = [SENTENCES[0] + " and on" * 30] * 8
            with ThreadPoolExecutor(1) as pool:
                asked = pool.submit(httpx.post, f"{url}/embed", json={"inputs": texts}, timeout=30)
                for _ in range(2):  # both are at work before either has answered
                    assert held.begun.acquire(timeout=30)
                held.go.set()
                assert asked.result().status_code == 200

    def test_a_model_is_of_one_server_at_a_time(self, model):
        before = set(threading.enumerate())
        first, second = (Service([model], ServingOptions()) for _ in range(2))
        first.start()
        try:
            with pytest.raises(EngineError, match="tiny is already being served: load it again"):
                second.start()
            assert model.alive
        finally:
            first.close()
        second.start()
        second.close()
        assert set(threading.enumerate()) <= before

    def test_a_client_that_goes_leaves_the_queue(self, model, held, caplog):
        with serving([model], max_concurrent_requests=2) as url:
            with ThreadPoolExecutor(1) as pool:
                first = pool.submit(httpx.post, f"{url}/embed", json={"inputs": "a"}, timeout=30)
                assert held.begun.acquire(timeout=20)
                with pytest.raises(httpx.TimeoutException):
                    httpx.post(f"{url}/embed", json={"inputs": ["b"] * 3}, timeout=0.5)
                end = time.monotonic() + 20
                while metric(url, "sparsebert_requests_in_flight") > 1:
                    assert time.monotonic() < end
                    time.sleep(0.02)
                held.go.set()
                assert first.result().status_code == 200
            assert httpx.post(f"{url}/embed", json={"inputs": "c"}).status_code == 200
        assert held.sequences == [1, 1]  # the three were never computed
        gc.collect()  # when asyncio complains of exceptions that nobody asked for
        assert not [each for each in caplog.records if each.levelno >= logging.ERROR]

    def test_a_failing_engine_is_424_and_goes_on(self, model, monkeypatch):
        with serving([model]) as url, httpx.Client(base_url=url) as client:
            real = Encoder.pooled

            def fail(*_: Any) -> None:
                raise RuntimeError("no more memory")

            monkeypatch.setattr(Encoder, "pooled", fail)
            response = client.post("/embed", json={"inputs": ["a", "b"]})
            assert response.status_code == 424
            assert response.json()["error_type"] == "Backend"
            assert response.json()["error"] == "the engine failed: no more memory."
            error = client.post("/v1/embeddings", json={"input": "a"}).json()["error"]
            assert error["type"] == "server_error"
            monkeypatch.setattr(Encoder, "pooled", real)
            assert client.post("/embed", json={"inputs": "a"}).status_code == 200

    def test_a_fault_of_our_own_is_500_without_its_words(self, model, monkeypatch, caplog):
        from sparsebert.serving import json_route

        async def broken(_: Any) -> bytes:
            raise KeyError("zanzibar")

        with serving([model]) as url:
            monkeypatch.setattr(json_route, "to_json", broken)
            response = httpx.post(f"{url}/embed", json={"inputs": "a"})
        assert response.status_code == 500
        assert response.json()["error"] == "internal server error."
        (line,) = [each for each in caplog.records if each.getMessage() == "fault"]
        assert line.fields["kind"] == "KeyError"
        assert "zanzibar" not in repr(line.__dict__)

    def test_a_body_that_never_comes(self, model, monkeypatch):
        from sparsebert.serving import connections

        monkeypatch.setattr(connections, "BODY_SECONDS", 0.2)
        with serving([model]) as url, httpx.Client(base_url=url) as client:
            answer = raw(client, b'{"inputs"', {"Content-Length": "500"})
        assert answer.startswith(b"HTTP/1.1 408 ")


def wait_for_tokens(url: str, count: int) -> None:
    end = time.monotonic() + 20
    while metric(url, "sparsebert_waiting_tokens") < count:
        assert time.monotonic() < end
        time.sleep(0.02)


class TestKey:
    @pytest.fixture(scope="class")
    def client(self, model) -> Iterator[Any]:
        with (
            serving(
                [another(model)], api_key="sésame", cors_allow_origin=("https://a.example",)
            ) as url,
            httpx.Client(base_url=url) as made,
        ):
            yield made

    @pytest.mark.parametrize(
        "header", [None, "", "sésame", "Bearer", "Bearer sésam", "Basic sésame"]
    )
    def test_refusals(self, client, header):
        headers = {} if header is None else {"Authorization": header.encode()}
        for path, method in {"/embed": "POST", "/info": "GET", "/metrics": "GET"}.items():
            response = client.request(method, path, headers=headers, json={"inputs": "a"})
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.json()["error_type"] == "Unauthorized"

    def test_the_right_one(self, client):
        headers = {"Authorization": "Bearer sésame".encode()}
        assert client.post("/embed", headers=headers, json={"inputs": "a"}).status_code == 200
        assert client.get("/info", headers=headers).status_code == 200

    def test_what_is_open(self, client):
        for path in ("/health", "/v2/health/live", "/v2/health/ready", "/docs", "/"):
            assert client.get(path).status_code == 200, path
        assert client.post("/", json={"inputs": "a"}).status_code == 401

    def test_cors_is_for_those_named(self, client):
        asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
        found = client.options("/embed", headers=asked)
        assert found.headers["access-control-allow-origin"] == "https://a.example"
        asked["Origin"] = "https://b.example"
        assert "access-control-allow-origin" not in client.options("/embed", headers=asked).headers

    def test_cors_is_off_by_default(self, model):
        with serving([model]) as url:
            found = httpx.get(f"{url}/health", headers={"Origin": "https://a.example"})
        assert "access-control-allow-origin" not in found.headers
