"""Square's timecards: who worked when, by ids alone.

`POST /v2/labor/timecards/search` took the place of the deprecated `/v2/labor/shifts/search` with API version 2025-05-21.
A timecard belongs to the business date of its clock-in. It names a team member by id; names are in the Team API, which is
never asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from flux_pipelines.providers.base import Record, Window
from flux_pipelines.providers.square.paging import follow, stamp, unordered
from flux_pipelines.providers.square.records import Listed, lists

if TYPE_CHECKING:
    from flux_pipelines.transport.client import ApiClient

_PATH = "/v2/labor/timecards/search"
_PAGE_SIZE = 200  # the most, and the default
_MOST_LOCATIONS = 10  # no limit is documented; it is what other searches take
# The instants of timecards are told in whole seconds: a change within the first second of a window seems to be before it.
_TRUNCATED = timedelta(seconds=1)
_decode = lists("timecards")


def read(api: ApiClient, connection: str, window: Window) -> Iterator[list[Record]]:
    """Yield the timecards that began in the window, those that go on still too."""
    for ids in _some(window.location_ids):

        def ask(start: datetime, cursor: str, ids: tuple[str, ...] = ids) -> Listed:
            # Both ends of the interval belong to it; the end is taken off below.
            began = {"start_at": stamp(start), "end_at": stamp(window.end)}
            query = {
                "filter": {"location_ids": ids, "start": began},
                "sort": {"field": "START_AT", "order": "ASC"},
            }
            return _search(api, ids, query, cursor)

        for page in follow(ask, window.start, _latest_start, connection=connection, what=_PATH):
            records = [
                Record("time_entry", one.head.location_id or "", one.raw, one.head.happened)
                for one in page.found
                if (began := one.head.happened) is None or began < window.end
            ]
            if records:
                yield records


def changes(api: ApiClient, connection: str, window: Window) -> Iterator[tuple[str, datetime]]:
    """Yield where and when the timecards began that changed in the window.

    They cannot be filtered by their last change but sorted by it: newest first, until it lies before the window. Deleted
    timecards are in no list.
    """
    since = window.start - _TRUNCATED
    for ids in _some(window.location_ids):

        def ask(_: datetime, cursor: str, ids: tuple[str, ...] = ids) -> Listed:
            query = {"filter": {"location_ids": ids}, "sort": {"field": "UPDATED_AT", "order": "DESC"}}
            return _search(api, ids, query, cursor)

        for page in follow(ask, window.start, unordered, connection=connection, what=_PATH):
            changes = [(one, at) for one in page.found if (at := one.head.changed) is not None]
            for one, at in changes:
                began = one.head.happened
                if began is not None and since <= at < window.end:
                    yield one.head.location_id or "", began
            if any(at < since for _, at in changes):
                break


def _some(location_ids: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for first in range(0, len(location_ids), _MOST_LOCATIONS):
        yield location_ids[first : first + _MOST_LOCATIONS]


def _search(api: ApiClient, ids: tuple[str, ...], query: dict[str, Any], cursor: str) -> Listed:
    body: dict[str, Any] = {"query": query, "limit": _PAGE_SIZE}
    if cursor:
        body["cursor"] = cursor
    answer = api.request("POST", _PATH, json=body, idempotent=True, budget=ids, decode=_decode)
    return answer.value


def _latest_start(page: Listed) -> datetime | None:
    return max(filter(None, (one.head.happened for one in page.found)), default=None)
