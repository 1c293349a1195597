"""Rows of Square's report by the hour: they add up to a store's date, or are no figure of it at all."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from flux_pipelines.domain.connection import Connection
from flux_pipelines.lake.raw import RawStore
from flux_pipelines.lake.store import object_store
from flux_pipelines.providers import witness
from flux_pipelines.providers.base import Location, Window
from flux_pipelines.providers.square import PROVIDER
from flux_pipelines.sync.daily import line_of
from flux_pipelines.sync.records import BadRecord
from flux_pipelines.sync.transform import transform
from flux_pipelines_tests.providers.squarewire import square

CONNECTION = Connection("square:acme", "acme", settings={})
PLACE = Location("L1", "One", "America/New_York", "USD")
DAY = date(2026, 3, 6)


def hour(**more: str | None) -> dict[str, str | None]:
    figures = {"net_sales": "10.00", "sales_tax_amount": "0.80", "tips_amount": "1.00"} | more
    return {"Orders.location_id": "L1", **{f"Orders.{name}": amount for name, amount in figures.items()}}


def made(folder: Path, rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[BadRecord]]:
    raw = RawStore(object_store(str(folder / "lake")), witness.STREAM)
    with raw.writer(CONNECTION.key, DAY) as writer:
        segment = writer.segment()
        segment.write_many([line_of(witness.REPORTED, "L1", json.dumps(row).encode()) for row in rows])
        manifest = writer.commit([segment], fetched_at=datetime(2026, 3, 8, tzinfo=UTC))
    (table,) = (one for one in PROVIDER.tables if one.table == "reported_sales")
    found = transform(PROVIDER, table, CONNECTION, [PLACE], raw, [manifest])
    return found.rows.to_pylist(), list(found.bad)


def test_hours_add_up(tmp_path: Path) -> None:
    ((row,), bad) = made(tmp_path, [hour(), hour(net_sales="-2.50", tips_amount="0.25")])
    assert bad == []
    assert (row["net"], row["tax"], row["tips"]) == (Decimal("7.5"), Decimal("1.6"), Decimal("1.25"))


def test_a_figure_that_an_hour_does_not_have_is_no_figure_of_the_date(tmp_path: Path) -> None:
    ((row,), bad) = made(tmp_path, [hour(), hour(sales_tax_amount=None)])
    assert bad == []
    assert (row["net"], row["tax"], row["tips"]) == (20, None, 2)


def test_an_hour_that_cannot_be_read_makes_the_date_unreadable(tmp_path: Path) -> None:
    rows, (bad,) = made(tmp_path, [hour(), hour(net_sales="ten"), hour()])
    assert rows == [], "two hours of three are no date"
    assert "net_sales" in bad.reason


META = {"cubes": [{"name": "Orders",
    "measures": [{"name": "Orders.net_sales"}],
    "dimensions": [{"name": f"Orders.{name}"} for name in ("location_id", "sale_timestamp")],
    "segments": [{"name": "Orders.closed_checks"}]
}]}  # fmt: skip


@pytest.mark.parametrize("at", ["2026-03-06T04:00:00.000", "2026-03-08T05:00:00.000", None, "noon"])
def test_an_hour_of_no_date_that_was_asked_for_is_no_witness(
    at: str | None, httpserver: HTTPServer, tmp_path: Path
) -> None:
    row = {**hour(), "Orders.sale_timestamp.hour": at}
    httpserver.expect_request("/reporting/v1/meta").respond_with_json(META)
    httpserver.expect_request("/reporting/v1/load").respond_with_json({"data": [row]})
    starts = (datetime(2026, 3, 6, 5, tzinfo=UTC), datetime(2026, 3, 7, 5, tzinfo=UTC))
    window = Window(("L1",), starts[0], datetime(2026, 3, 8, 5, tzinfo=UTC), DAY, starts)
    with square(httpserver.url_for(""), tmp_path) as client:
        found = [record for page in client.read(witness.STREAM, window) for record in page]
    assert [(one.kind, one.location_id, one.at) for one in found] == [(witness.NO_WITNESS, "L1", at) for at in starts]
    assert all(b"hour" in bytes(one.raw) for one in found)
