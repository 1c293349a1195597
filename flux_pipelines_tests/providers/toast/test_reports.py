"""With what a date's sales report is asked for: reports are limited to a few an hour."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from flux_pipelines.domain.business_day import BusinessCalendar
from flux_pipelines.providers import witness
from flux_pipelines.providers.base import Window
from flux_pipelines_tests.providers.toast.wire import RESTAURANT, toast

ZONE = "America/New_York"


class Analytics:
    """Makes reports over HTTP: what is asked of it is written down, and had once it has been asked for twice."""

    def __init__(self, server: HTTPServer) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self._made: Counter[str] = Counter()
        general = {"name": "Roma", "timeZone": ZONE, "closeoutHour": 4}
        server.expect_request("/partners/v1/restaurants").respond_with_json([{"restaurantGuid": RESTAURANT}])
        server.expect_request(f"/restaurants/v1/restaurants/{RESTAURANT}").respond_with_json(
            {"guid": RESTAURANT, "general": general}
        )
        for span in ("day", "week", "month"):
            server.expect_request(f"/era/v1/metrics/{span}", method="POST").respond_with_handler(self._ask)
        for number in range(10):
            server.expect_request(f"/era/v1/metrics/report-{number}", method="GET").respond_with_handler(self._have)

    def _ask(self, request: Request) -> Response:
        body = json.loads(request.data)
        span = request.path.rpartition("/")[2]
        self.asked.append((span, body["startBusinessDate"], body["endBusinessDate"]))
        return Response(json.dumps(f"report-{len(self.asked) - 1}"), content_type="application/json")

    def _have(self, request: Request) -> Response:
        name = request.path.rpartition("/")[2]
        self._made[name] += 1
        if self._made[name] < 2:
            return Response("{}", 202, content_type="application/json")
        _, first, last = self.asked[int(name.rpartition("-")[2])]
        days = (date.fromisoformat(last) - date.fromisoformat(first)).days + 1
        rows: list[dict[str, Any]] = [
            {
                "restaurantGuid": RESTAURANT,
                "businessDate": f"{date.fromisoformat(first) + timedelta(days=n):%Y%m%d}",
                "netSalesAmount": (date.fromisoformat(first) + timedelta(days=n)).toordinal(),
            }
            for n in range(days)
        ]
        return Response(json.dumps(rows), content_type="application/json")


@pytest.fixture
def analytics(httpserver: HTTPServer) -> Analytics:
    return Analytics(httpserver)


def test_weeks_and_months_that_are_over_are_asked_for_as_a_whole(
    analytics: Analytics, httpserver: HTTPServer, tmp_path: Path
) -> None:
    calendar = BusinessCalendar(ZONE)
    noon = datetime.combine(date(2026, 7, 23), time(12), ZoneInfo(ZONE)).astimezone(UTC)  # a Thursday
    days = [date(2026, 5, 25) + timedelta(days=n) for n in range(59)]  # to the day before
    with time_machine.travel(noon), toast(httpserver.url_for(""), tmp_path) as client:
        for day in days:
            window = Window((RESTAURANT,), *calendar.window(day), day)
            (page,) = client.read(witness.STREAM, window)
            (record,) = page
            assert json.loads(bytes(record.raw))["netSalesAmount"] == day.toordinal()
        waited = client.stats.waited_seconds
    assert analytics.asked == [
        ("month", "20260501", "20260531"),
        ("month", "20260601", "20260630"),
        ("week", "20260629", "20260705"),
        ("week", "20260706", "20260712"),
        ("week", "20260713", "20260719"),
        ("day", "20260720", "20260720"),
        ("day", "20260721", "20260721"),
        ("day", "20260722", "20260722"),
    ]
    assert waited < 10, "having reports does not count as asking for them"
