"""Compares business dates that were landed some time ago with what the provider says of them now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.money import known_currencies
from flux_pipelines.lake.raw import RawManifest
from flux_pipelines.providers.base import Location, OrderHeader, Source, Window
from flux_pipelines.sync.landing import TERMINAL, add_up, comparable
from flux_pipelines.sync.slices import INSTANT_OF
from flux_pipelines.sync.windows import DayIndex, contiguous, group_locations


@dataclass(slots=True)
class Count:
    """Closed orders and sales of one business date: how many in each state, and the totals of sales (minor units)."""

    states: dict[str, int] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)

    def add(self, header: OrderHeader) -> None:
        """Count an order."""
        self.states[header.state] = self.states.get(header.state, 0) + 1
        add_up(self.totals, [header])


@dataclass(slots=True)
class Recounted:
    """What the provider says now of some business dates, and when the latest of their orders was closed."""

    days: dict[date, Count] = field(default_factory=dict)
    latest: datetime | None = None


def recount(
    source: Source, connection: Connection, locations: Sequence[Location], days: Sequence[date], now: datetime
) -> Recounted:
    """Count the orders of some business dates again, by the time of the proof: not the query that landed them.

    Raises:
        FluxError: the provider cannot be asked, or a location cannot be used.

    """
    found = Recounted({day: Count() for day in days})
    instant_of = INSTANT_OF[source.verified_by]
    for group in group_locations(connection, locations, source.max_locations_per_window):
        for run in contiguous(days):
            index = DayIndex(group.calendar, run)
            seen: set[str] = set()  # a search that starts again gives orders a second time
            for page in source.pages(Window(group.location_ids, index.start, now), source.verified_by):
                for order in page.orders:
                    header = order.header
                    if header is None or not comparable(header) or header.order_id in seen:
                        continue
                    number = index.number_of(header)
                    if 0 <= number < len(run):
                        seen.add(header.order_id)
                        found.days[run[number]].add(header)
                        if (at := instant_of(header)) is not None:
                            found.latest = max(found.latest or at, at)
    return found


def difference(manifest: RawManifest, count: Count) -> str:
    """Say in words how a landed partition differs from a recount; empty when it does not."""
    told = [
        f"{count.states.get(state, 0)} orders {state.lower()}, landed were {manifest.states.get(state, 0)}"
        for state in sorted(TERMINAL)
        if count.states.get(state, 0) != manifest.states.get(state, 0)
    ]
    here, there = _comparable(manifest.totals), _comparable(count.totals)
    told += [
        f"totals in {currency} (minor units) come to {there.get(currency, 0)}, landed were {here.get(currency, 0)}"
        for currency in sorted({*here, *there})
        if here.get(currency, 0) != there.get(currency, 0)
    ]
    return "; ".join(told)


def _comparable(totals: Mapping[str, int]) -> dict[str, int]:
    """Return the totals as a manifest has them: no zeros, and no currency whose orders are in quarantine as unknown."""
    return {currency: total for currency, total in totals.items() if total and currency in known_currencies()}
