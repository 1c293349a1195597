"""What changed in a stream since it was last looked at: where and when the records happened, whatever the stream is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import NamedTuple

from flux_pipelines.providers.base import Source, Stream, Window


class Change(NamedTuple):
    """A record that changed.

    `at` is the instant that decides its business date, unless the provider names the date. `changed_at` is when it changed
    at the latest.
    """

    location_id: str
    at: datetime
    business_date: date | None
    changed_at: datetime


def changes(
    source: Source, stream: Stream, location_ids: Sequence[str], since: datetime, start: datetime, end: datetime
) -> Iterator[Change]:
    """Yield the changes of some locations from `since` to `end`.

    Args:
        source: the provider's client.
        stream: orders, or a daily stream.
        location_ids: at most as many as one question may be of are asked for at once.
        since: what changed from here on.
        start: where the last look ended; what lies before has been looked at already, and is looked at again because
            providers' indexes by time of change are not instant.
        end: up to here.

    """
    most = source.max_locations_per_window
    for ids in (tuple(location_ids[at : at + most]) for at in range(0, len(location_ids), most)):
        if stream.strategy == "windowed":
            for page in source.pages(Window(ids, since, end), "updated"):
                for order in page.orders:
                    if (header := order.header) is not None:  # else reading its day has put it in quarantine, or will
                        yield Change(header.location_id, header.created_at, header.business_date, header.updated_at)
            continue
        # The overlap by itself: what was fetched since the last look has those changes, and is not fetched again.
        for begin, before in ((since, start), (start, end)):
            for location_id, at in source.changes(stream.name, Window(ids, begin, before, begin.date())):
                yield Change(location_id, at, None, before)
