"""The gateway under attack: how much memory it takes, and how long `/healthz` takes beside a quiet gateway.

`python -m benchmarks.attack URL SECONDS` is the attacker; the tests send the same requests to every route.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import zstandard

from benchmarks.harness import ROOT, Target, report
from benchmarks.webhooks import Setup, gateway

#: Brackets in each other: more than Python's and msgspec's parsers descend.
DEPTH = 1_500
#: What a stranger would like to have at the beginning of a line of the log.
FORGED = "2026-12-01 00:00:00,000 INFO forged"
SECONDS = 15
LANES = 8
ROUTES = (
    ("POST", "/webhooks/square"),
    ("GET", "/sign-in"),
    ("POST", "/sign-out"),
    ("GET", "/connections/square:acme"),
    ("GET", "/api/v1/connections"),
    ("POST", "/api/v1/connections/square:acme/syncs"),
)
_FORM = "content-type: application/x-www-form-urlencoded"
_JSON = "content-type: application/json"
_BOMB = b"0" * 5_000_000


@cache
def bodies() -> dict[str, tuple[str, bytes]]:
    """Content type (and encoding) and body of requests that are to break what reads them."""
    wide = json.dumps({f"k{n}": n for n in range(15_000)}).encode()
    multipart = b"".join(b'--b\r\ncontent-disposition: form-data; name="f%d"\r\n\r\nx\r\n' % n for n in range(3_000))
    return {
        "deep lists": (_JSON, b'{"a":' + b"[" * DEPTH + b"]" * DEPTH + b"}"),
        "deep objects": (_JSON, b'{"a":' * DEPTH + b"1" + b"}" * DEPTH),
        "deep and open": (_JSON, b"[" * 200_000),
        "long": (_JSON, b'{"reason":"' + b"a" * 250_000 + b'"}'),
        "too long": (_JSON, b'"' + b"a" * 1_100_000 + b'"'),
        "wide": (_JSON, wide),
        "a wide form": (_FORM, b"&".join(b"f%d=x" % n for n in range(20_000))),
        "a wide multipart form": ("content-type: multipart/form-data; boundary=b", multipart + b"--b--\r\n"),
        "gzip": (f"{_JSON}\r\ncontent-encoding: gzip", gzip.compress(_BOMB)),
        "zstd": (f"{_JSON}\r\ncontent-encoding: zstd", zstandard.compress(_BOMB)),
        "lines for the log": (_JSON, json.dumps({"reason": f"\r\n{FORGED}"}).encode()),
    }


def requests(method: str, path: str, host: str, more: str = "") -> Iterator[tuple[str, bytes]]:
    """Name and bytes of requests to a route, each on a connection of its own; `more` are lines of headers, ended."""

    def head(target: str = path, *lines: str) -> bytes:
        own = "".join(f"{line}\r\n" for line in ("connection: close", *lines))
        return f"{method} {target} HTTP/1.1\r\nhost: {host}\r\n{more}{own}\r\n".encode()

    for name, (kind, body) in bodies().items():
        if method == "GET" and name not in ("deep lists", "too long"):
            continue  # nobody reads them
        yield name, head(path, kind, f"content-length: {len(body)}") + body
    yield (
        "endless",
        head(path, _JSON, "transfer-encoding: chunked") + b"10000\r\n" + (b"a" * 65536 + b"\r\n10000\r\n") * 18,
    )
    yield "a long path", head(path + "/" + "a" * 60_000)
    yield "a long query", head(path + "?a=" + "a" * 60_000)
    yield "a wide query", head(path + "?" + "&".join(f"q{n}=x" for n in range(8_000)))
    yield "a line for the log", head(path + f"%0D%0A{FORGED.replace(' ', '%20')}?q=%0A{FORGED.replace(' ', '%20')}")
    yield "a long header", head(path, "x-long: " + "a" * 60_000)
    yield "wide headers", head(path, *(f"x-{n}: {n}" for n in range(1_000)))
    yield "an endless head", head(path)[:-2] + b"x-endless: " + b"a" * 1_000_000


def status_of(address: tuple[str, int], request: bytes) -> int:
    """Send a request and return the status; 0 when the connection ended before its answer was read.

    Raises:
        TimeoutError: nothing came for 30 s.

    """
    with socket.create_connection(address, timeout=30) as connection:
        with contextlib.suppress(ConnectionError):  # refused while it is sent
            connection.sendall(request)
        with contextlib.suppress(ConnectionError):
            answer = connection.recv(65536)
            while connection.recv(65536):
                pass
            return int(answer.split(b" ", 2)[1]) if answer else 0
    return 0


@contextlib.contextmanager
def holding(address: tuple[str, int], host: str, paths: Sequence[str], each: int = 1) -> Iterator[None]:
    """Hold connections, for as long as the context lasts: silent ones, half a head, half a body, and answers unread."""
    with contextlib.ExitStack() as held:
        for path in paths:
            begun = f"POST {path} HTTP/1.1\r\nhost: {host}\r\n".encode()
            whole = f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()
            for sent in (b"", begun, begun + b"content-length: 1000\r\n\r\n{", whole * 200) * each:
                connection = held.enter_context(socket.socket())
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.settimeout(5)
                with contextlib.suppress(OSError):  # no place, or closed while it was sent
                    connection.connect(address)
                    connection.sendall(sent)
        yield


def memory_mib(pid: int, what: str = "VmRSS") -> float:
    """Return the resident memory of a process, or with `VmHWM` the most it has had."""
    line = next(one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith(f"{what}:"))
    return int(line.split()[1]) / 1024


def attack(url: str, seconds: float) -> Counter[int]:
    """Send everything to `ROUTES` over `LANES` connections at once and hold others; return how often each status came."""
    parts = urlsplit(url)
    address, until = (str(parts.hostname), int(parts.port or 80)), time.monotonic() + seconds
    everything = [sent for method, path in ROUTES for _, sent in requests(method, path, parts.netloc)]
    everything.append(
        b"GET / HTTP/1.1\r\n" + b"x: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 1_200_000
    )  # 65 MB
    statuses: Counter[int] = Counter()

    def lane(seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < until:
            try:
                statuses[status_of(address, chance.choice(everything))] += 1
            except OSError:
                statuses[-1] += 1

    lanes = [threading.Thread(target=lane, args=(seed,)) for seed in range(LANES)]
    with holding(address, parts.netloc, [path for _, path in ROUTES], each=10):
        for one in lanes:
            one.start()
        for one in lanes:
            one.join()
    return statuses


def probe(url: str, seconds: float) -> list[float]:
    """Ask `/healthz` 50 times a second, counted from when it was due; return the milliseconds, sorted."""
    taken: list[float] = []
    began = time.monotonic()
    while (due := began + len(taken) / 50) < began + seconds:
        time.sleep(max(0.0, due - time.monotonic()))
        with urllib.request.urlopen(f"{url}/healthz", timeout=30) as answer:
            answer.read()
        taken.append((time.monotonic() - due) * 1000)
    return sorted(taken)


def measure() -> bool:
    """Attack a gateway, print what it took, and tell whether the targets are met."""
    with gateway(Setup("SQLite", 1)) as running:
        url = running.url.removesuffix("/webhooks/square")
        quiet, before = probe(url, SECONDS), memory_mib(running.workers[0])
        command = [sys.executable, "-m", "benchmarks.attack", url, str(SECONDS)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as attacker:
            time.sleep(2)  # its imports, and the connections that it holds
            busy = probe(url, SECONDS - 2)
            out, _ = attacker.communicate()
        most, after = (memory_mib(running.workers[0], what) for what in ("VmHWM", "VmRSS"))
    statuses = json.loads(out)
    p99 = {name: taken[int(len(taken) * 0.99)] for name, taken in (("quiet", quiet), ("attacked", busy))}
    print(f"  /healthz p99: quiet {p99['quiet']:.1f} ms, attacked {p99['attacked']:.1f} ms (worst {busy[-1]:.0f} ms)")
    print(f"  resident: {before:.0f} MiB before, at most {most:.0f}, {after:.0f} after; answers by status {statuses}")
    targets = [
        Target("p99 of /healthz under attack", p99["attacked"], 1_000, unit=" ms"),
        Target("resident memory more than before, at most", most - before, 128, unit=" MiB"),
        Target("answers with 500", statuses.get("500", 0), 0, unit=""),
    ]
    return report("attack", {}, targets, {"p99": p99, "mib": [before, most, after], "statuses": statuses})


if __name__ == "__main__":
    print(json.dumps(attack(sys.argv[1], float(sys.argv[2]))))
