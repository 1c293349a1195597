"""The processes that compute forecasts, so that the server's event loop (and `/ping`) never waits for arithmetic.

A fork server imports the model once, in a process without threads; the workers are forked from it, cheap to replace and
sharing its memory. Workers end when their server ends, even when it was killed.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import date
from decimal import Decimal
from multiprocessing.connection import wait
from typing import Any

_MODEL = "flux_pipelines.forecaster.model"

History = list[tuple[date, float]]
Predictions = list[tuple[date, Decimal]]


class TooManyQueuedError(Exception):
    """The queue before the workers is full; the caller should come back later."""


class ModelFailedError(Exception):
    """The model refused the history (`refused`, the message says why) or a worker died."""

    def __init__(self, message: str, *, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


class Workers:
    """A pool of model processes with a bounded queue before it.

    Args:
        processes: how many forecasts are computed at once.
        queue: how many requests may wait or run at once; more are refused with `TooManyQueuedError`.

    """

    def __init__(self, processes: int = 2, queue: int = 256) -> None:
        self._processes = processes
        self._queue = queue
        self._outstanding = 0
        self._pool: ProcessPoolExecutor | None = None
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether every worker has loaded and tried the model."""
        return self._ready

    async def start(self) -> None:
        """Load the model and warm it up; takes seconds, without holding up the event loop."""
        # Submitting blocks as well: the first worker is forked only when the fork server has imported the model.
        await asyncio.to_thread(self._load)
        self._ready = True

    def stop(self) -> None:
        """End the workers; requests that have not begun are cancelled."""
        self._ready = False
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    async def forecast(self, history: History, horizon: int) -> Predictions:
        """Compute one forecast in a worker.

        Raises:
            TooManyQueuedError: the queue is full.
            ModelFailedError: the model refused this history, or the worker died over it.

        """
        if self._outstanding >= self._queue:
            raise TooManyQueuedError(f"{self._outstanding} requests are waiting or running already")
        pool = self._pool
        if pool is None:
            raise ModelFailedError("the model is not loaded", refused=False)
        self._outstanding += 1
        try:
            predictions, refusal = await asyncio.wrap_future(self._submit(pool, history, horizon))
        except BrokenProcessPool as error:
            # Every request that was in this pool gets this error; the first of them puts a new pool in its place.
            self._replace(pool)
            raise ModelFailedError("a model worker died and was replaced", refused=False) from error
        finally:
            self._outstanding -= 1
        if refusal is not None:
            raise ModelFailedError(refusal, refused=True)
        return predictions

    def _load(self) -> None:
        self._pool = pool = self._new_pool()
        for warm in [pool.submit(_warm_up) for _ in range(self._processes)]:
            warm.result()

    def _submit(
        self, pool: ProcessPoolExecutor, history: History, horizon: int
    ) -> Future[tuple[Predictions, str | None]]:
        try:
            return pool.submit(_forecast, history, horizon)
        except BrokenProcessPool:
            self._replace(pool)
            if self._pool is None:
                raise
            return self._pool.submit(_forecast, history, horizon)

    def _replace(self, broken: ProcessPoolExecutor) -> None:
        if self._pool is broken:
            broken.shutdown(wait=False, cancel_futures=True)
            self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        context: Any = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([_MODEL])
        return ProcessPoolExecutor(self._processes, mp_context=context, initializer=_live_with_server)


def _live_with_server() -> None:
    # An interrupt at the terminal reaches the whole process group; the server alone decides when workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = multiprocessing.parent_process()
    if server is not None:
        threading.Thread(target=_end_with, args=(server.sentinel,), daemon=True, name="end-with-server").start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    # A killed server cannot tell its workers to stop, and they hold both ends of their queue: they would wait for ever.
    os._exit(1)


def _warm_up() -> None:
    from flux_pipelines.forecaster import model

    model.warm_up()


def _forecast(history: History, horizon: int) -> tuple[Predictions, str | None]:
    from flux_pipelines.forecaster import model

    try:
        return model.forecast(history, horizon), None
    except model.ModelInputError as error:
        return [], str(error)
