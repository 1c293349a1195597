"""Delivers webhooks, in a thread and an event loop of its own: requests to the sandbox never wait for it."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import h11

from flux_sandbox.deliveries import Delivery, Failure, Outbox
from flux_sandbox.http_sender import HttpSender

MOST_CONCURRENT = 64
_STOP_SECONDS = 10.0


class Deliverer:
    """Sends what an outbox holds when it is due, at most so many at a time, until stopped. It starts with the first event.

    Args:
        outbox: what to send.
        clock: the world's present instant, for the headers.

    """

    def __init__(self, outbox: Outbox, clock: Callable[[], datetime]) -> None:
        self._outbox = outbox
        self._clock = clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._stopping = False
        outbox.arrived = self._arrived

    def _arrived(self) -> None:
        with self._lock:
            if self._stopping:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._main, name="sandbox-webhooks", daemon=True)
                self._thread.start()
            elif self._loop is not None:
                self._loop.call_soon_threadsafe(self._wake.set)

    def stop(self) -> None:
        """End it, with whatever is under way; ending it twice does no harm."""
        with self._lock:
            self._stopping = True
            thread = self._thread
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._wake.set)
        if thread is not None:
            thread.join(_STOP_SECONDS)

    def _main(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        with self._lock:
            self._loop = asyncio.get_running_loop()
        sender = HttpSender()
        try:
            await self._deliver_all(sender)
        finally:
            sender.close()
            with self._lock:
                self._loop = None

    async def _deliver_all(self, sender: HttpSender) -> None:
        busy: set[asyncio.Task[None]] = set()

        def ended(task: asyncio.Task[None]) -> None:
            busy.discard(task)
            self._wake.set()

        while not self._stopping:
            self._wake.clear()
            most = self._outbox.conditions.concurrency
            while len(busy) < most and (delivery := self._outbox.take()) is not None:
                task = asyncio.create_task(self._deliver(sender, delivery))
                busy.add(task)
                task.add_done_callback(ended)
            seconds = self._outbox.wait() if len(busy) < most else None
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), seconds)
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)

    async def _deliver(self, sender: HttpSender, delivery: Delivery) -> None:
        if not delivery.first_at:
            delivery.first_at = self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        headers = delivery.headers(delivery.attempt, delivery.failure, delivery.first_at)
        failure: Failure = ""
        status = 0
        try:
            async with asyncio.timeout(self._outbox.conditions.timeout):
                status = await sender.post(delivery.url, headers, delivery.body)
            if not 200 <= status < 300:
                failure = "status"
        except TimeoutError:
            failure = "timeout"
        except ssl.SSLError:
            failure = "tls"
        except (OSError, h11.ProtocolError, ValueError):
            failure = "connection"
        if failure:
            self._outbox.failed(delivery, failure, status)
        else:
            self._outbox.done(delivery, status)
