"""Servers under load: many clients on loopback, each sending a request as soon as it is answered.

    python benchmarks/serving.py --texts sst2/validation.parquet --clients 64 --seconds 60 \\
      --server "sparsebert=sparsebert serve packed/ --port {port} --auto-truncate" \\
      --server "plain=python benchmarks/plain_server.py minilm/ --port {port}" \\
      --server "infinity=infinity_emb v2 --model-id minilm/ --port {port}"

Every server gets the same requests: ``POST /v1/embeddings`` (or the path after the name, as in
``infinity/embeddings=...``) with one text each, in the same order. Servers run one at a time: in
each round, each is started, awaited, warmed up, put under load and stopped. A URL instead of a
command is a server that is already running. Latency is from the first byte of the request sent to
the last byte of the answer read. Reports medians over rounds, and every round in JSON. CPU seconds
are those of the server's process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sparsebert.machine import describe_machine
from sparsebert.tasks.texts import read_texts, single_texts

PATH = "/v1/embeddings"
START_SECONDS = 300.0
ANSWER_SECONDS = 60.0  # a client that waits longer counts as hung
# Built-in texts: these are strung together until a text has the number of words drawn for it.
PARTS = (
    "the ferry leaves at noon",
    "nobody expected the old bridge to hold, yet it did",
    "she planted two rows of beans beside the wall and waited for rain",
    "a kind word costs nothing; a careless one can cost a friendship",
    "copper conducts electricity well because its electrons move freely",
    "few readers will finish this novel, and fewer still will regret it",
    "rivers that freeze in winter carry less silt than those that flow all year",
    "in the harbour the boats knocked softly against each other until the wind drove all home",
)


@dataclass(frozen=True)
class Server:
    """``target`` is a command with ``{port}`` in it, or the URL of a running server."""

    name: str
    path: str
    target: str


@dataclass
class Load:
    """The result of one round of load on one server. Latencies are in milliseconds."""

    server: str
    clients: int
    seconds: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    requests_per_second: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    longest: float = 0.0
    server_cpu: float | None = None
    client_cpu: float = 0.0


def main() -> int:
    asked = parse()
    servers = [as_server(text) for text in asked.server]
    texts = single_texts(read_texts(asked.texts)) if asked.texts else made_texts(2000, asked.seed)
    random.Random(asked.seed).shuffle(texts)
    loads: list[Load] = []
    for turn in range(asked.rounds):
        start = turn % len(servers)
        for server in servers[start:] + servers[:start]:
            with running(server) as (url, pid):
                requests = as_requests(server, url, texts, asked.model)
                address = (urlsplit(url).hostname or "", urlsplit(url).port or 80)
                run(drive(server.name, address, requests, 8, asked.warm_up, None))
                for clients in asked.clients:
                    load = run(drive(server.name, address, requests, clients, asked.seconds, pid))
                    loads.append(load)
                    tell(f"round {turn + 1}, {told(load)}")
    result = {
        "machine": describe_machine(),
        "settings": {
            "seconds": asked.seconds,
            "rounds": asked.rounds,
            "texts": asked.texts.name if asked.texts else "built-in",
            "mean_characters": round(statistics.fmean(map(len, texts)), 1),
        },
        "loads": [asdict(load) for load in loads],
        "servers": summaries(loads),
    }
    print(json.dumps(result) if asked.json else as_markdown(result))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--server",
        action="append",
        required=True,
        metavar="NAME[/PATH]=COMMAND|URL",
        help="a command with {port} in it, or the URL of a running server; may be repeated",
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[64])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--warm-up", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=Path, help="as in `sparsebert bench`; else built-in ones")
    parser.add_argument("--model", help="the model's name in requests")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    return parser.parse_args()


def as_server(text: str) -> Server:
    name, _, target = text.partition("=")
    name, slash, path = name.partition("/")
    return Server(name, slash + path if slash else PATH, target)


def made_texts(count: int, seed: int) -> list[str]:
    """Texts of 3 to 180 words, most of them short: log-normal with a median of 18 words."""
    draw = random.Random(seed)
    texts = []
    for _ in range(count):
        wanted = min(180, max(3, round(draw.lognormvariate(2.9, 0.9))))
        words: list[str] = []
        while len(words) < wanted:
            words += draw.choice(PARTS).split()
        texts.append(" ".join(words[:wanted]))
    return texts


@contextmanager
def running(server: Server) -> Iterator[tuple[str, int | None]]:
    """The server's URL, and its process id if we started it; it is stopped at the end."""
    if server.target.startswith("http://"):
        yield server.target, None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = shlex.split(server.target.replace("{port}", str(port)))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await_port(port, process)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(
                f"the server ended with exit code {process.returncode} before it listened."
            )
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise SystemExit(f"the server did not listen within {START_SECONDS:.0f} s.")


def as_requests(server: Server, url: str, texts: Sequence[str], model: str | None) -> list[bytes]:
    """Complete HTTP requests, built beforehand: the clients share the machine with the server."""
    host = urlsplit(url).netloc
    requests = []
    for text in texts:
        body = json.dumps({"input": [text]} | ({"model": model} if model else {})).encode()
        head = (
            f"POST {server.path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    return requests


class Client(asyncio.Protocol):
    """One connection that sends a request, waits for the complete answer, and starts over."""

    def __init__(self, queue: Iterator[bytes], end: float, record: Recorder) -> None:
        self.queue, self.end, self.record = queue, end, record
        self.done = asyncio.get_running_loop().create_future()
        self.sent = 0.0
        self.buffer = bytearray()
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.sent = time.perf_counter()
        if self.sent >= self.end:
            self.finish()
            return
        self.transport.write(next(self.queue))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        status = whole_answer(self.buffer)
        if status is None:
            return
        closing = b"connection: close" in bytes(self.buffer[:1000]).lower()
        self.buffer.clear()
        self.record.add(status, time.perf_counter() - self.sent)
        if closing:
            self.finish()
        elif status == "200":
            self.ask()
        else:  # refused at once: repeating it at once would flood the server
            asyncio.get_running_loop().call_later(0.05, self.ask)

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.done.done():
            self.record.add("lost", time.perf_counter() - self.sent)
            self.done.set_result(None)

    def finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        self.transport.close()


class Recorder:
    """The statuses of all answers, and the seconds that those with status 200 took."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []

    def add(self, status: str, seconds: float) -> None:
        self.statuses[status] += 1
        if status == "200":
            self.seconds.append(seconds)


def whole_answer(buffer: bytearray) -> str | None:
    """The status of an answer once it is complete; None before."""
    head = buffer.find(b"\r\n\r\n")
    if head < 0:
        return None
    headers = bytes(buffer[:head]).lower()
    place = headers.find(b"content-length:")
    if place >= 0:
        length = int(headers[place + 15 :].split(b"\r\n", 1)[0])
        if len(buffer) < head + 4 + length:
            return None
    elif not buffer.endswith(b"0\r\n\r\n"):  # chunked
        return None
    return buffer[9:12].decode()


async def drive(
    name: str,
    address: tuple[str, int],
    requests: Sequence[bytes],
    clients: int,
    seconds: float,
    pid: int | None,
) -> Load:
    """``clients`` connections for ``seconds``."""
    load, record = Load(name, clients), Recorder()
    queue = endless(requests)
    cpu, own = cpu_seconds(pid), time.process_time()
    started = time.perf_counter()
    loop = asyncio.get_running_loop()
    made = await asyncio.gather(
        *(
            loop.create_connection(lambda: Client(queue, started + seconds, record), *address)
            for _ in range(clients)
        )
    )
    waits = [protocol.done for _, protocol in made]
    _, hung = await asyncio.wait(waits, timeout=seconds + ANSWER_SECONDS)
    record.statuses["hung"] += len(hung)
    load.seconds = time.perf_counter() - started
    load.client_cpu = time.process_time() - own
    if cpu is not None and (later := cpu_seconds(pid)) is not None:
        load.server_cpu = later - cpu
    load.statuses = dict(+record.statuses)
    took = sorted(1e3 * each for each in record.seconds)
    if took:
        load.requests_per_second = len(took) / load.seconds
        load.p50, load.p90, load.p99 = (
            took[min(len(took) - 1, int(share * len(took)))] for share in (0.5, 0.9, 0.99)
        )
        load.longest = took[-1]
    return load


def endless(requests: Sequence[bytes]) -> Iterator[bytes]:
    while True:
        yield from requests


def run(coroutine: Any) -> Load:
    """Run with uvloop if it is installed: clients should cost little."""
    try:
        import uvloop

        return uvloop.run(coroutine)
    except ImportError:
        return asyncio.run(coroutine)


def cpu_seconds(pid: int | None) -> float | None:
    """CPU time of a process so far, over all its threads; None if it is not available."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def summaries(loads: Sequence[Load]) -> list[dict[str, Any]]:
    """Medians over the rounds of each server at each number of clients."""
    found = []
    for name, clients in dict.fromkeys((load.server, load.clients) for load in loads):
        mine = [load for load in loads if (load.server, load.clients) == (name, clients)]
        statuses: Counter[str] = Counter()
        for load in mine:
            statuses.update(load.statuses)
        summary: dict[str, Any] = {"server": name, "clients": clients, "statuses": dict(statuses)}
        for field_name in ("requests_per_second", "p50", "p90", "p99", "longest"):
            summary[field_name] = statistics.median(getattr(load, field_name) for load in mine)
        costs = [
            1e3 * load.server_cpu / max(1, sum(load.statuses.values()))
            for load in mine
            if load.server_cpu is not None
        ]
        summary["server_cpu_ms"] = statistics.median(costs) if costs else None
        found.append(summary)
    return found


def as_markdown(result: dict[str, Any]) -> str:
    machine, settings = result["machine"], result["settings"]
    lines = [
        f"{settings['rounds']} rounds of {settings['seconds']:g} s, texts: {settings['texts']}, "
        f"{settings['mean_characters']} characters on average; {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['date']}",
        "",
        "| server | clients | requests/s | p50 ms | p90 ms | p99 ms | longest ms | CPU ms each | "
        "answers |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for each in result["servers"]:
        cost = each["server_cpu_ms"]
        answers = ", ".join(f"{count} x {status}" for status, count in each["statuses"].items())
        lines.append(
            f"| {each['server']} | {each['clients']} | {each['requests_per_second']:.0f} | "
            f"{each['p50']:.1f} | {each['p90']:.1f} | {each['p99']:.1f} | {each['longest']:.1f} | "
            f"{'' if cost is None else f'{cost:.2f}'} | {answers} |"
        )
    return "\n".join(lines)


def told(load: Load) -> str:
    return (
        f"{load.server}, {load.clients} clients: {load.requests_per_second:.0f} requests/s, "
        f"p50 {load.p50:.1f} ms, p99 {load.p99:.1f} ms, {load.statuses}, "
        f"server {load.server_cpu} and clients {load.client_cpu:.1f} CPU seconds"
    )


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
