"""Following Square's cursors to the end, whatever the list: they die after minutes, and a list then begins again.

And orders by their ids, of which an answer holds so many at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from flux_pipelines.domain.errors import ProviderUnavailableError
from flux_pipelines.providers.paging import Progress
from flux_pipelines.transport.errors import RefusedError

if TYPE_CHECKING:
    import msgspec

    from flux_pipelines.transport.client import ApiClient

_CURSOR_CODES = frozenset({"INVALID_CURSOR", "CURSOR_EXPIRED", "EXPIRED_CURSOR"})
_MOST_RESTARTS_IN_PLACE = 8
_MOST_IDS = 100  # the most that BatchRetrieveOrders accepts


class _Record(Protocol):
    @property
    def raw(self) -> msgspec.Raw:
        """The record as received."""


class Paged(Protocol):
    """A page of anything; an empty cursor says that it is the last."""

    @property
    def cursor(self) -> str:
        """What asks for the next page."""

    @property
    def found(self) -> Sequence[_Record]:
        """What is on the page."""


P = TypeVar("P", bound=Paged)
T = TypeVar("T")


def follow(
    ask: Callable[[datetime, str], P],
    start: datetime,
    latest: Callable[[P], datetime | None],
    *,
    connection: str,
    what: str,
) -> Iterator[P]:
    """Yield the pages of a list that is sorted by time, oldest first.

    A dead cursor makes the list start again from the last instant seen: what lies at that very instant comes twice.

    Args:
        ask: fetches a page: of the list from an instant on, after a cursor (empty for the first page).
        start: where the list begins.
        latest: the last instant on a page; None where a list has no order to go by, so that it starts again as a whole.
        connection: for the error.
        what: the path of the list, for the error.

    Raises:
        BadResponseError: the pages do not end.
        ProviderUnavailableError: cursors die again and again without the list getting any further.

    """
    restarts = 0
    while True:
        reached = start
        cursor = ""
        progress = Progress(connection, what)
        try:
            while True:
                page = ask(start, cursor)
                reached = max(reached, latest(page) or reached)
                yield page
                cursor = page.cursor
                if not cursor:
                    return
                progress.page(cursor, [one.raw for one in page.found])
        except RefusedError as refused:
            if not cursor or not _CURSOR_CODES.intersection(refused.codes):
                raise
            restarts = restarts + 1 if reached == start else 0
            if restarts > _MOST_RESTARTS_IN_PLACE:
                raise ProviderUnavailableError(
                    f"Square's cursors die before the next page can be read (at {reached.isoformat()})",
                    connection=connection,
                ) from refused
            start = reached


def orders_by_id(api: ApiClient, order_ids: Iterable[str], decode: Callable[[bytes], T]) -> Iterator[T]:
    """Yield the answers that hold the orders of these ids as they are now; Square leaves out those it does not know."""
    distinct = list(dict.fromkeys(order_ids))
    for first in range(0, len(distinct), _MOST_IDS):
        some = {"order_ids": distinct[first : first + _MOST_IDS]}
        yield api.request("POST", "/v2/orders/batch-retrieve", json=some, idempotent=True, decode=decode).value


def unordered(_: Paged) -> None:
    """Say that a page has no instant that a list could go on from."""


def stamp(instant: datetime) -> str:
    """Return an aware instant as Square reads it."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
