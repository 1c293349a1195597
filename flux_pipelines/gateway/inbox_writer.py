"""Stores webhook events in groups: whoever waits while a commit is under way shares the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from flux_pipelines.domain.errors import StateUnavailableError

if TYPE_CHECKING:
    from flux_pipelines.state import Inbox, NewEvent

_MOST_A_COMMIT = 500
_MOST_WAITING = 5_000
#: After a group of this size, how long the next one is let grow: those just answered are about to send again. Fewer,
#: larger commits take about a seventh less of the processor when it is busy.
_LARGE = 8
_GATHER_SECONDS = 0.003


class InboxWriter:
    """One per event loop. Nothing is reported as stored before its commit has returned.

    Args:
        inbox: where events are stored.
        redacted: takes out of events what must not be stored. Called in a thread, with a whole group at once.

    """

    def __init__(
        self, inbox: Inbox, redacted: Callable[[Sequence[NewEvent]], Sequence[NewEvent]] = lambda events: events
    ) -> None:
        self._inbox = inbox
        self._redacted = redacted
        self._waiting: list[tuple[NewEvent, asyncio.Future[None]]] = []
        self._busy = False
        # One thread: a second one would commit smaller groups and wait for the same disk.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flux-inbox")
        self._drains: set[asyncio.Task[None]] = set()

    async def add(self, event: NewEvent) -> None:
        """Return once the event is in the inbox, whether it is new or was there before.

        Raises:
            StateUnavailableError: too many events wait already, or the database does not answer.
            StorageFullError: no space left for the inbox.

        """
        if len(self._waiting) >= _MOST_WAITING:
            raise StateUnavailableError("events arrive faster than the state database stores them")
        loop = asyncio.get_running_loop()
        stored: asyncio.Future[None] = loop.create_future()
        self._waiting.append((event, stored))
        if not self._busy:
            self._busy = True
            drain = loop.create_task(self._drain())
            self._drains.add(drain)
            drain.add_done_callback(self._drains.discard)
        await stored

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:_MOST_A_COMMIT], self._waiting[_MOST_A_COMMIT:]
                error: BaseException | None = None
                try:
                    await loop.run_in_executor(self._thread, self._store, [event for event, _ in group])
                except Exception as problem:  # noqa: BLE001 - each of those who wait raises it
                    error = problem
                _tell([stored for _, stored in group], error)
                if len(group) >= _LARGE:
                    await asyncio.sleep(_GATHER_SECONDS)
        finally:
            self._busy = False

    def _store(self, events: Sequence[NewEvent]) -> None:
        self._inbox.add_many(self._redacted(events))

    def close(self) -> None:
        """Let the thread end; what is being committed is committed."""
        self._thread.shutdown(wait=True)


def _tell(waiters: Sequence[asyncio.Future[None]], error: BaseException | None) -> None:
    for waiter in waiters:
        if waiter.done():  # its request was given up
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)
