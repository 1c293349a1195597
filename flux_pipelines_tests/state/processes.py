"""Runs functions in real processes that begin at the same moment."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from typing import Any

# A process costs a fork and not an import; the fork server itself is clean of the test's threads and sockets.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["flux_pipelines_tests.state.workers"])


def _run(
    function: Callable[..., Any], args: tuple[Any, ...], barrier: Barrier | None, number: int, results: Any
) -> None:
    def ready() -> int:
        """Wait until every process has come this far; return which one this is."""
        if barrier is not None:
            barrier.wait(60)
        return number

    try:
        outcome = function(*args, ready)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the test must see it
        outcome = error
    results.put((number, outcome))


def together(count: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Return what `function(*args, ready)` returned or raised in each of `count` processes."""
    barrier = context.Barrier(count)
    results = context.Queue()
    workers = [context.Process(target=_run, args=(function, args, barrier, number, results)) for number in range(count)]
    for worker in workers:
        worker.start()
    outcomes = dict(results.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join(30)
    return [outcomes[number] for number in range(count)]


def alone(function: Callable[..., Any], *args: Any) -> tuple[ForkServerProcess, Any]:
    """Start one process; return it and the queue on which its outcome comes as (0, outcome)."""
    results = context.Queue()
    worker = context.Process(target=_run, args=(function, args, None, 0, results), daemon=True)
    worker.start()
    return worker, results
