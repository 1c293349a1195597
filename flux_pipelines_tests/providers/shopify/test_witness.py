"""`daily_sales` equals the books of a small Shopify that keeps its own: synced as one range, and day by day in another order."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import AbstractContextManager
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from flux_pipelines.defs.runner import sync
from flux_pipelines.domain.business_day import known_calendars
from flux_pipelines.domain.connection import Connection
from flux_pipelines.lake import session
from flux_pipelines.lake.raw import RawStore
from flux_pipelines.lake.store import object_store
from flux_pipelines.providers.shopify import PROVIDER
from flux_pipelines.runtime import Runtime
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.normalise import Normalisation
from flux_pipelines.sync.transform import transform
from flux_pipelines.sync.windowed import read_windowed
from flux_pipelines_tests.defs.bare import bring_in, connected_with, contents
from flux_pipelines_tests.providers.shopify.wire import TOKEN, shopify
from flux_pipelines_tests.providers.shopify.witness import FIRST, LAST, Witness, serving

KEY = "shopify:witness"
DAYS = [date(2026, 3, day) for day in range(FIRST, LAST + 1)]
FIGURES = ("net", "tax", "tips", "gift_cards")
SAME = ("transactions", "payments", "daily_sales", "daily_item_demand")
Figures = dict[date, tuple[Decimal, ...]]


def home(folder: Path, url: str) -> AbstractContextManager[Runtime]:
    """Open a home of its own, connected to the witness."""
    return connected_with(folder, KEY, date(2026, 3, 1), {"access_token": TOKEN}, base_url=url)


def figures(runtime: Runtime) -> Figures:
    with session(runtime.lake) as database:
        rows = database.execute(f"select business_date, {', '.join(FIGURES)} from daily_sales").fetchall()
    return {day: tuple(values) for day, *values in rows}


def told(witness: Witness) -> Figures:
    return {day: tuple(Decimal(witness.books[day.day][name]) / 100 for name in FIGURES) for day in DAYS}


def test_a_day_is_what_shopifys_own_report_says(tmp_path: Path) -> None:
    witness = Witness(1)
    books = told(witness)
    with serving(witness) as url:
        with home(tmp_path / "range", url) as runtime:
            assert sync(runtime, [KEY], DAYS).failures == []
            assert figures(runtime) == books
            whole = contents(runtime, SAME)
            with session(runtime.lake) as database:
                gaps = database.execute(
                    "select business_date, gap, gap_reason from tie_out where gap is distinct from 0 or not payments_known"
                ).fetchall()
                reported = database.execute(
                    "select business_date, r.net - s.net, r.tax - s.tax from reported_sales r "
                    "join daily_sales s using (connection, location_id, business_date) where r.status = 'reported'"
                ).fetchall()
            assert gaps == []
            assert sorted(reported) == [(day, 0, 0) for day in DAYS], "the report that it serves says the same"
        with home(tmp_path / "days", url) as runtime:
            days = DAYS[:]
            random.Random(1).shuffle(days)
            for piece in (days[:1], days[1:4], *([day] for day in days[4:6]), days[6:]):
                bring_in(runtime, KEY, sorted(piece))
            assert figures(runtime) == books
            assert contents(runtime, SAME) == whole


@pytest.mark.parametrize("seed", range(2, 8))
def test_whatever_the_amounts_are(seed: int, tmp_path: Path) -> None:
    """The same of the rows of `transactions` alone; and what each order's payments leave open."""
    witness = Witness(seed)
    with serving(witness) as url, shopify(url, tmp_path, bulk_days=seed % 2) as client:
        connection, raw, places = (
            Connection(KEY, "t"),
            RawStore(object_store(str(tmp_path / "lake"))),
            client.locations(),
        )
        context = SyncContext(client, connection, places, raw, PROVIDER)
        landed = list(read_windowed(context, [date(2026, 2, 20), *DAYS]))
    manifests = [one.manifest for one in landed if one.manifest is not None]
    assert {one.verification.status for one in manifests} == {"verified"}
    work = Normalisation(PROVIDER, raw, connection, manifests, known_calendars(places, 0))
    found: dict[date, Counter[str]] = {day: Counter() for day in DAYS}
    open_: Counter[str] = Counter()
    for row in (row for batch in work.batches() for row in batch.to_pylist()):
        open_[row["order_id"]] += row["total"]
        of_day = found.get(row["business_date"], Counter())
        of_day["net"] += row["net"]
        of_day["tax"] += row["tax"]
        if row["line_type"] in ("tip", "gift_card"):
            of_day[f"{row['line_type']}s"] += row["total"]
    assert work.bad == []
    assert {day: tuple(Decimal(sums[name]) for name in FIGURES) for day, sums in found.items()} == told(witness)
    spec = next(one for one in PROVIDER.tables if one.table == "payments")
    for row in transform(PROVIDER, spec, connection, places, raw, manifests).rows.to_pylist():
        open_[row["order_id"]] -= row["amount"] + row["tip"]
    (unpaid,) = [one for one in witness.orders if one.owed != one.paid]
    assert {order for order, left in open_.items() if left} == {str(unpaid.number)}
