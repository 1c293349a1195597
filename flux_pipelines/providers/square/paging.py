"""Following Square's cursors to the end, whatever the list: they die after minutes, and a list then begins again.

And orders by their ids, of which an answer holds so many at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from flux_pipelines.providers.common.paging import by_cursor

if TYPE_CHECKING:
    import msgspec

    from flux_pipelines.transport.client import ApiClient

_CURSOR_CODES = frozenset({"INVALID_CURSOR", "CURSOR_EXPIRED", "EXPIRED_CURSOR"})
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
    """Yield the pages of a list of Square's, oldest first where it is sorted by time: see `by_cursor`."""
    return by_cursor(
        ask,
        lambda page: page.cursor,
        lambda page: [one.raw for one in page.found],
        connection=connection,
        what=what,
        start=start,
        latest=latest,
        is_dead=lambda refused: not _CURSOR_CODES.isdisjoint(refused.codes),
    )


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
