"""Whether a list that comes in pages gets on: the same for every provider and every list of its."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from flux_pipelines.domain.errors import BadResponseError

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
