"""What a backfill will cost before it runs: calls, minutes at the rate limit, share of the quota.

The number of orders is estimated from one page of each group of locations: the first page of the range tells how much
time a page covers. That costs one call a group. Where pages come in no order, a whole date is read instead. What is
collected beside orders is read for one date, the middle one, and taken as often as there are dates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from math import ceil

from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import PermissionLostError
from flux_pipelines.providers.base import Location, Provider, Source, Window
from flux_pipelines.sync.windowed import batch_sizes
from flux_pipelines.sync.windows import DayIndex, Group, contiguous, group_locations, stream_window
from flux_pipelines.transport import Stats, metered

#: Seconds that Dagster itself spends on one partition of the whole chain, measured on two shared cores with its SQLite
#: storage: a planned event and a materialisation of about 20 ms each, for five assets.
BOOKKEEPING_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of fetching some business dates of one connection.

    Args:
        connection: the connection's key.
        locations: how many locations are asked for.
        orders: how many orders there are, about.
        calls: requests to the provider, the completeness proof and the estimate itself included.
        stream_calls: how many of them are for payments, hours worked and the like: daily streams.
        minutes_at_limit: how long those take at least, at the connection's rate limit.
        quota_share: the busiest location's calls as a share of what its limit allows in a day.
        bookkeeping_seconds: what Dagster spends on the partitions besides.
        uncounted: streams that could not be read, each with the reason: what they will cost is not counted.

    """

    connection: str
    locations: int
    orders: int
    calls: int
    stream_calls: int
    minutes_at_limit: float
    quota_share: float
    bookkeeping_seconds: float
    uncounted: tuple[str, ...] = ()


def estimate(
    source: Source,
    provider: Provider,
    connection: Connection,
    locations: Sequence[Location],
    days: Sequence[date],
    *,
    verify: bool = True,
    beside_orders: bool = False,
) -> Estimate:
    """Estimate what fetching the business dates will cost.

    Args:
        source: the provider's client.
        provider: its declaration.
        connection: whose orders.
        locations: all of its locations.
        days: the business dates.
        verify: whether completeness will be proved.
        beside_orders: whether the daily streams will be read as well.

    Raises:
        FluxError: the provider cannot be asked, or a location cannot be used.

    """
    groups = group_locations(connection, locations, source.max_locations_per_window)
    runs = list(contiguous(days))
    per_minute = int(provider.settings_of(connection).get("requests_per_minute", 0)) or _slowest(provider)
    orders = 0
    calls_by_group: list[int] = []
    for group in groups:
        calls = 1  # the sample itself
        for run in runs:
            found, page_size = _sample(source, group, run)
            orders += found
            rounds = 2 if verify else 1
            # Each batch of days ends with a page that is only partly full.
            calls += rounds * (ceil(found / page_size) + len(batch_sizes(len(run), found / len(run))))
        calls_by_group.append(calls)
    sample, uncounted = _streams_by_sample(source, provider, groups, days) if beside_orders else ([], ())
    stream_calls = 0
    by_key: Counter[str] = Counter()
    for cost, windows in sample:
        # The sample itself is one window more.
        stream_calls += cost.requests * (windows + 1)
        by_key.update({key: count * (windows + 1) for key, count in cost.by_key.items()})
    for group, calls in zip(groups, calls_by_group, strict=True):
        by_key.update({f"{provider.name}/{connection.key}/{place}": calls for place in group.location_ids})
    busiest = max(by_key.values())
    return Estimate(
        connection=connection.key,
        locations=len(locations),
        orders=orders,
        calls=sum(calls_by_group) + stream_calls,
        stream_calls=stream_calls,
        minutes_at_limit=busiest / per_minute,
        quota_share=busiest / (per_minute * 24 * 60),
        bookkeeping_seconds=len(set(days)) * BOOKKEEPING_SECONDS,
        uncounted=uncounted,
    )


def _streams_by_sample(
    source: Source, provider: Provider, groups: Sequence[Group], days: Sequence[date]
) -> tuple[list[tuple[Stats, int]], tuple[str, ...]]:
    """Read every stream by business date for the dates in the middle.

    Returns:
        What each cost and of how many such questions the dates are, and which could not be read and why.

    """
    now = datetime.now(UTC)
    begun = [day for day in sorted(set(days)) if min(group.calendar.start(day) for group in groups) <= now]
    by_day = [stream for stream in provider.streams if begun and stream.strategy == "daily"]
    if by_day:
        source.verify_access()  # what is proved once a sync is no part of a sample
    costs, uncounted = [], []
    for stream in by_day:
        most = stream.dates_a_window
        windows = [run[at : at + most] for run in contiguous(begun) for at in range(0, len(run), most)]
        try:
            with metered() as cost:
                for group in groups:
                    for _ in source.read(stream.name, stream_window(group, windows[len(windows) // 2])):
                        pass
            costs.append((cost, len(windows)))
        except PermissionLostError as lost:  # the sync will fail at this stream alone, at its first date
            uncounted.append(str(lost))
    return costs, tuple(uncounted)


def _slowest(provider: Provider) -> float:
    return min(limit.requests * 60.0 / limit.seconds for limit in provider.rate_limits)


def _sample(source: Source, group: Group, run: Sequence[date]) -> tuple[int, int]:
    """Ask for the first page of a run of days; return about how many orders the run has, and what a page holds."""
    index = DayIndex(group.calendar, run)
    now = datetime.now(UTC)
    if index.start >= now:
        return 0, 1
    end = min(index.end, now)
    whole = Window(group.location_ids, index.start, end)
    if source.by_business_date or not source.supports_slicing(whole, "created"):
        return _sample_date(source, group, index, now)
    page = next(iter(source.pages(whole, "created")), None)
    if page is None or page.last:
        found = len(page.orders) if page is not None else 0
        return found, max(1, found)
    size = max(1, len(page.orders))
    last = max((o.header.created_at for o in page.orders if o.header is not None), default=end)
    covered = max(last - index.start, timedelta(seconds=1))
    return ceil(size * ((end - index.start) / covered)), size


def _sample_date(source: Source, group: Group, index: DayIndex, now: datetime) -> tuple[int, int]:
    """Read the middle one of the dates that are over; return about how many orders they all have, and a page's size."""
    over = max(1, sum(index.window(number)[1] <= now for number in range(len(index.days))))
    number = over // 2
    start, end = index.window(number)
    date_ = index.days[number] if source.by_business_date else None
    sizes = [
        len(page.orders) for page in source.pages(Window(group.location_ids, start, min(end, now), date_), "created")
    ]
    return sum(sizes) * len(index.days), max(1, *sizes)
