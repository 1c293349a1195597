"""Lists that come in pages, read to their end: by cursors, by offsets, and by the last instant seen.

A list that does not get on is an error, for every provider and every list of its (`Progress`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from flux_pipelines.domain.errors import BadResponseError, ProviderUnavailableError
from flux_pipelines.transport.errors import RefusedError

P = TypeVar("P")
_ALWAYS = datetime.min.replace(tzinfo=UTC)
#: How often in a row a list begins again in one place.
_MOST_RESTARTS_IN_PLACE = 8

#: Pages shift while they are read, so that one may come again. A list that does so more often than this goes in a circle.
_MOST_REPEATED = 3
#: Pages in a row that may hold nothing although more follow: a filter may leave none of what the provider looked through.
_MOST_EMPTY = 100


class Progress:
    """Watches the reading of one list, in the same few bytes however long it is.

    Cursors and pages are compared with one that came earlier; each time twice as many have come since, the present one takes
    its place (Brent's algorithm). So a circle is found after three times its length at most. A list of records that are new
    for ever is not told from a long one.

    Args:
        connection: whose list, for the error.
        what: which list: the path, or the operation.
        first: what asks for the first page, where that is numbered too.

    """

    def __init__(self, connection: str, what: str, first: int | None = None) -> None:
        self._connection = connection
        self._what = what
        self._cursor: str | int | None = first
        self._page = 0
        self._steps, self._until = 0, 1
        self._repeated = self._empty = 0

    def page(self, cursor: str | int | None, records: Sequence[bytes | msgspec.Raw]) -> None:
        """Take note of a page that more follow on.

        Args:
            cursor: what asks for the next one.
            records: what is on it.

        Raises:
            BadResponseError: the list does not get on.

        """
        if not cursor:
            raise self._stuck("says that more follows, and not where")
        if cursor == self._cursor:
            raise self._stuck(f"names a page as the next one that it has given already ({str(cursor)[:40]!r})")
        page = hash((len(records), bytes(records[0]), bytes(records[-1]))) if records else 0
        self._empty = 0 if records else self._empty + 1
        self._repeated += bool(records) and page == self._page
        if self._repeated > _MOST_REPEATED:
            raise self._stuck("gives the same records again and again")
        if self._empty > _MOST_EMPTY:
            raise self._stuck(f"has given {_MOST_EMPTY} pages without a record")
        self._steps += 1
        if self._steps == self._until:
            self._cursor, self._page = cursor, page
            self._steps, self._until = 0, 2 * self._until

    def _stuck(self, why: str) -> BadResponseError:
        return BadResponseError(
            f"the pages of {self._what} do not end: the provider {why}",
            connection=self._connection,
            next_step="Nothing of it was stored. Run it again later; if it stays so, report it to the provider's support.",
        )


def by_cursor(
    ask: Callable[[datetime, Any], P],
    following: Callable[[P], Any],
    records: Callable[[P], Sequence[bytes | msgspec.Raw]],
    *,
    connection: str,
    what: str,
    first: Any = "",
    start: datetime = _ALWAYS,
    latest: Callable[[P], datetime | None] = lambda _: None,
    is_dead: Callable[[RefusedError], bool] = lambda _: False,
) -> Iterator[P]:
    """Yield the pages of a list of which each names the next: by a cursor, a token or a number.

    A cursor that has died makes the list begin again, from the last instant seen: what lies at that very instant comes twice.

    Args:
        ask: fetches a page: of the list from an instant on, by what names it.
        following: what names the next page; nothing after the last one.
        records: what is on a page.
        connection: for errors.
        what: the path of the list, for errors.
        first: what names the first page.
        start: where the list begins.
        latest: the last instant on a page; None where a list has no order to go by, so that it begins again as a whole.
        is_dead: whether a page was refused because its cursor has died.

    Raises:
        BadResponseError: the pages do not end.
        ProviderUnavailableError: cursors die again and again without the list getting any further.

    """
    restarts = 0
    while True:
        reached, cursor, progress = start, first, Progress(connection, what, first or None)
        try:
            while True:
                page = ask(start, cursor)
                reached = max(reached, latest(page) or reached)
                yield page
                cursor = following(page)
                if not cursor:
                    return
                progress.page(cursor, records(page))
        except RefusedError as refused:
            if cursor == first or not is_dead(refused):
                raise
            restarts = restarts + 1 if reached == start else 0
            if restarts > _MOST_RESTARTS_IN_PLACE:
                raise ProviderUnavailableError(
                    f"the cursors die before the next page of {what} can be read"
                    + ("" if reached is _ALWAYS else f" (at {reached.isoformat()})"),
                    connection=connection,
                ) from refused
            start = reached


def by_offset(
    ask: Callable[[int], Sequence[msgspec.Raw]], *, connection: str, what: str
) -> Iterator[Sequence[msgspec.Raw]]:
    """Yield the pages of a list that is asked for by how many records lie before: until one is empty, for short ones may be in between.

    Args:
        ask: fetches what follows on so many records.
        connection: for errors.
        what: the path of the list, for errors.

    Raises:
        BadResponseError: the pages do not end.

    """
    offset, progress = 0, Progress(connection, what)
    while page := ask(offset):
        yield page
        offset += len(page)
        progress.page(offset, page)


def by_instant(
    ask: Callable[[datetime, int], Sequence[P]],
    start: datetime,
    instant: Callable[[P], datetime | None],
    raw: Callable[[P], msgspec.Raw],
    *,
    connection: str,
    what: str,
) -> Iterator[list[P]]:
    """Yield the pages of a list that is sorted by time and asked for by offset, oldest first.

    A record that changes while pages are read leaves its place, and all behind it move up: one of them is on no page then. So
    the list goes on from the last instant seen, and by offset only while nothing later comes.

    Args:
        ask: fetches what is not before an instant, after so many records.
        start: where the list begins.
        instant: of a record; None where it cannot be read.
        raw: a record as received.
        connection: for errors.
        what: the path of the list, for errors.

    Raises:
        BadResponseError: the pages do not end.

    """
    offset, progress, seen = 0, Progress(connection, what), set[bytes]()
    while page := ask(start, offset):
        texts = [bytes(raw(one)) for one in page]
        new = [one for one, text in zip(page, texts, strict=True) if text not in seen]
        if new:
            yield new
        reached = max((at for one in page if (at := instant(one)) is not None), default=start)
        if reached > start:
            start, offset, seen = reached, 0, set(texts)
        else:
            offset, seen = offset + len(page), seen.union(texts)
        progress.page(f"{start.isoformat()} {offset}", texts)
