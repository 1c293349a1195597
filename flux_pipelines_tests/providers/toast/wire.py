"""Everything that tests of Toast's client and SQL share: orders given as dictionaries, through the client's reading."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from flux_pipelines.domain.business_day import BusinessCalendar
from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.money import known_currencies
from flux_pipelines.lake.raw import RawStore
from flux_pipelines.lake.store import object_store
from flux_pipelines.providers.base import Credentials, Order, OrderHeader, SourceContext
from flux_pipelines.providers.toast import PROVIDER
from flux_pipelines.providers.toast.client import ToastClient
from flux_pipelines.providers.toast.orders import read_order
from flux_pipelines.settings import PROJECT_ROOT
from flux_pipelines.sync.normalise import Normalisation
from flux_pipelines_tests.providers.squarewire import Calls, FixedToken, transport

EXAMPLES = PROJECT_ROOT.parent / "shared" / "examples" / "toast"
CONNECTION = Connection("toast:test", "tenant", settings={"cutoff_hour": 4})
DAY = date(2026, 3, 2)
RESTAURANT = "0cd990c9-fd74-461d-8468-de2a0919cbba"
CALENDARS = {RESTAURANT: BusinessCalendar("America/New_York", 4)}


def read(order: dict[str, Any] | str, currency: str = "USD") -> Order:
    text = order if isinstance(order, str) else json.dumps(order)
    return read_order(text.encode(), RESTAURANT, currency)


def header(order: dict[str, Any] | str, currency: str = "USD") -> OrderHeader:
    found = read(order, currency)
    assert found.header is not None, found.problem
    return found.header


def rows_of(
    folder: Path, *orders: dict[str, Any] | str, currency: str = "USD"
) -> tuple[list[dict[str, Any]], Normalisation]:
    """Return what transactions.sql makes of orders; the rows of each good one add up to its header's total."""
    raw = RawStore(object_store(str(folder / "lake")))
    writer = raw.writer(CONNECTION.key, DAY)
    segment = writer.segment()
    read_ones = [read(order, currency) for order in orders]
    segment.write_many([order.raw for order in read_ones])
    manifest = writer.commit([segment], fetched_at=datetime.now(UTC), api_version=PROVIDER.api_version)
    work = Normalisation(PROVIDER, raw, CONNECTION, [manifest], CALENDARS)
    rows = [row for batch in work.batches() for row in batch.to_pylist()]
    bad = {one.order_id for one in work.bad}
    for found in read_ones:
        if found.header is None or found.header.order_id in bad or not found.header.counts:
            continue
        of_order = [row["total"] for row in rows if row["order_id"] == found.header.order_id]
        assert sum(of_order, Decimal(0)) == Decimal(found.header.total).scaleb(-known_currencies()[currency]), (
            "header and rows disagree"
        )
    return rows, work


@contextmanager
def toast(
    url: str,
    folder: Path,
    *,
    credentials: Credentials | None = None,
    calls: Calls | None = None,
    **settings: Any,
) -> Iterator[ToastClient]:
    """Open a client; history is not paused for."""
    connection = Connection("toast:test", "tenant", settings={"base_url": url, "history_pause_seconds": 0, **settings})
    with transport(folder, calls) as opened:
        client = ToastClient(SourceContext(PROVIDER, connection, credentials or FixedToken("token"), opened))
        try:
            yield client
        finally:
            client.close()
