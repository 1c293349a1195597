"""The provider's own sales report as a feed by day: what every provider that has one does the same way.

A report is a witness, and no more: where it cannot be had, the day's records say so and why, and nothing fails. Each store
that was asked for has one record a day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import msgspec

from flux_pipelines.domain.errors import PermissionLostError, ProviderUnavailableError
from flux_pipelines.providers.base import FeedWindow, Record
from flux_pipelines.transport.errors import RefusedError

T = TypeVar("T", bound=Mapping[str, msgspec.Raw] | Sequence["ReportedOrder"])

FEED = "reported_sales"
#: What the report says of a store, as received.
REPORTED = "reported"
#: The report has other stores of the same question, and nothing of this one.
NOTHING = "nothing_reported"
#: There is no report, and none to be expected soon.
NO_WITNESS = "no_witness"
#: There is no report yet: asking again can help.
NOT_YET = "no_witness_yet"
#: All of them come and go: a permission is granted, or taken back.
PASSING = (REPORTED, NOTHING, NO_WITNESS, NOT_YET)
#: Reports lag behind (Square says 15 minutes): a date is asked for once it has been over for this long.
FRESH_AFTER = timedelta(minutes=20)

NOT_OVER = "the date was not over yet"
EMPTY = "the report was empty"


class NoWitnessError(Exception):
    """There is no report, and why.

    Args:
        reason: in words that follow `no witness: `.
        passing: whether asking again can help.

    """

    def __init__(self, reason: str, *, passing: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.passing = passing


class ReportedOrder(NamedTuple):
    """What the report says of one order on a business date."""

    location_id: str
    order_id: str
    net: Decimal


@runtime_checkable
class ReportSource(Protocol):
    """A provider whose report can be asked order by order. The same object as its `PosSource`."""

    def reported_orders(self, window: FeedWindow) -> Sequence[ReportedOrder]:
        """Return what the report says of each order of some stores' business date.

        Raises:
            NoWitnessError: it does not, and why.

        """


def records(
    window: FeedWindow, ask: Callable[[], Mapping[str, msgspec.Raw]], permission: str
) -> Iterator[list[Record]]:
    """Yield what the report says of each store of a window, or why it says nothing.

    Args:
        window: the stores and the date.
        ask: returns what the report says, by store.
        permission: what it takes to read the report, for people.

    """
    try:
        said = answered(window, ask, permission)
    except NoWitnessError as nothing:
        kind = NOT_YET if nothing.passing else NO_WITNESS
        why = msgspec.Raw(msgspec.json.encode({"reason": nothing.reason}))
        yield [Record(kind, location, why) for location in window.location_ids]
        return
    yield [
        Record(REPORTED, location, said[location])
        if location in said
        else Record(NOTHING, location, msgspec.Raw(b"{}"))
        for location in window.location_ids
    ]


def answered(window: FeedWindow, ask: Callable[[], T], permission: str) -> T:
    """Ask a report, and return what it says: something, always.

    Raises:
        NoWitnessError: it says nothing, and why.

    """
    if datetime.now(UTC) < window.end + FRESH_AFTER:
        raise NoWitnessError(NOT_OVER, passing=True)
    try:
        said = ask()
    except PermissionLostError as lost:
        raise NoWitnessError(f"not permitted, it takes {permission} ({lost.what})") from lost
    except RefusedError as refused:
        gone = refused.status == 404
        raise NoWitnessError(f"there is no report here ({refused.what})" if gone else refused.what) from refused
    except ProviderUnavailableError as failed:
        raise NoWitnessError(failed.what, passing=True) from failed
    if not said:
        raise NoWitnessError(EMPTY, passing=True)
    return said
