"""The provider's own sales report as a daily stream: what every provider that has one does the same way.

A report is a witness, and no more: where it cannot be had, the day's records say so and why, and nothing fails. Each store
that was asked for has a record a day, or several that add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache, partial
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import msgspec

from flux_pipelines.domain.errors import PermissionLostError, ProviderUnavailableError
from flux_pipelines.providers.base import Record, Window
from flux_pipelines.transport.errors import RefusedError

T = TypeVar("T", bound=Mapping[str, Sequence[msgspec.Raw]] | Sequence["ReportedOrder"])

STREAM = "reported_sales"
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
    """A provider whose report can be asked order by order. The same object as its `Source`."""

    def reported_orders(self, window: Window) -> Sequence[ReportedOrder]:
        """Return what the report says of each order of some stores' business date.

        Raises:
            NoWitnessError: it does not, and why.

        """


#: What a report says of each store: a row, or several that add up.
Said = Mapping[str, Sequence[msgspec.Raw]]


def dated(window: Window, ask: Callable[[Window], Mapping[date, Said]], permission: str) -> Iterator[list[Record]]:
    """Yield what `records` does for a window of several dates: those that are over are asked for together, once.

    Args:
        window: the stores and the dates.
        ask: returns what the report says of several dates.
        permission: what it takes to read the report, for people.

    """
    dates = window.by_date()
    over = [one for one in dates if datetime.now(UTC) >= one.end + FRESH_AFTER]

    @cache
    def told() -> Mapping[date, Said] | Exception:
        starts = tuple(one.start for one in over) if len(over) > 1 else ()
        try:
            return ask(replace(over[0], end=over[-1].end, starts=starts))
        except (PermissionLostError, RefusedError, ProviderUnavailableError, NoWitnessError) as nothing:
            return nothing  # for each of the dates

    def of(day: date) -> Said:
        if isinstance(said := told(), Exception):
            raise said
        return said.get(day, {})

    for one in dates:
        for page in records(one, partial(of, one.first_date), permission):
            yield [record._replace(at=one.start) for record in page]


def records(window: Window, ask: Callable[[], Said], permission: str) -> Iterator[list[Record]]:
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
    nothing_of_it = [Record(NOTHING, "", msgspec.Raw(b"{}"))]
    yield [
        record._replace(location_id=location)
        for location in window.location_ids
        for record in [Record(REPORTED, location, row) for row in said.get(location, ())] or nothing_of_it
    ]


def answered(window: Window, ask: Callable[[], T], permission: str) -> T:
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
