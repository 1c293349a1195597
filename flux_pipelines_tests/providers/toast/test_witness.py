"""`daily_sales` equals the books of a small Toast that keeps its own: synced as one range, and day by day in another order."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import AbstractContextManager
from datetime import date
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest

from flux_pipelines.defs.runner import sync
from flux_pipelines.domain.business_day import known_calendars
from flux_pipelines.domain.connection import Connection
from flux_pipelines.lake import session
from flux_pipelines.lake.raw import RawStore
from flux_pipelines.lake.store import object_store
from flux_pipelines.providers.toast import PROVIDER
from flux_pipelines.runtime import Runtime
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.normalise import Normalisation
from flux_pipelines.sync.transform import transform
from flux_pipelines.sync.windowed import read_windowed
from flux_pipelines_tests.defs.bare import bring_in, connected_with, contents
from flux_pipelines_tests.providers.toast.wire import toast
from flux_pipelines_tests.providers.toast.witness import FIRST, LAST, RESTAURANT, Witness, serving

KEY = "toast:witness"
DAYS = [date(2026, 3, day) for day in range(FIRST, LAST + 1)]
FIGURES = ("net", "tax", "marketplace_tax", "tips", "gift_cards", "third_party", "rounding")
SAME = ("transactions", "payments", "daily_sales", "daily_item_demand")
Figures = dict[date, tuple[Decimal, ...]]
#: What the rows that are not revenue are called in daily_sales.
NAMES = {"tip": "tips", "gift_card": "gift_cards", "third_party": "third_party", "rounding": "rounding"}


def home(folder: Path, url: str) -> AbstractContextManager[Runtime]:
    """Open a home of its own, connected to the witness."""
    return connected_with(
        folder,
        KEY,
        date(2026, 3, 1),
        {"client_id": "w", "client_secret": "w"},
        base_url=url,
        restaurants=RESTAURANT,
        history_pause_seconds=0,
    )


def figures(runtime: Runtime) -> Figures:
    with session(runtime.lake) as database:
        rows = database.execute(f"select business_date, {', '.join(FIGURES)} from daily_sales").fetchall()
    return {day: tuple(values) for day, *values in rows}


def cut(days: list[date], chance: random.Random) -> list[list[date]]:
    """Cut days into four syncs, in any order."""
    edges = [0, *sorted(chance.sample(range(1, len(days)), 3)), len(days)]
    pieces = [days[start:end] for start, end in pairwise(edges)]
    chance.shuffle(pieces)
    return pieces


def told(witness: Witness) -> Figures:
    return {day: tuple(Decimal(witness.books[day.day][name]) / 100 for name in FIGURES) for day in DAYS}


@pytest.mark.timeout(900)
def test_a_day_is_what_toasts_own_report_says(tmp_path: Path) -> None:
    seed = 1
    witness = Witness(seed)
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
                reported = database.execute("select business_date, net from reported_sales").fetchall()
            assert gaps == []
            assert {day: net for day, net in reported if day in books} == {day: sums[0] for day, sums in books.items()}
        with home(tmp_path / "days", url) as runtime:
            for days in cut(DAYS, random.Random(seed)):
                bring_in(runtime, KEY, days)
            assert figures(runtime) == books
            assert contents(runtime, SAME) == whole


@pytest.mark.parametrize("seed", range(2, 6))
def test_whatever_the_amounts_are(seed: int, tmp_path: Path) -> None:
    """The same of the rows of `transactions` alone, and what each day's payments hold."""
    witness = Witness(seed)
    with serving(witness) as url, toast(url, tmp_path, restaurants=RESTAURANT) as client:
        connection, raw, places = (
            Connection(KEY, "t"),
            RawStore(object_store(str(tmp_path / "lake"))),
            client.locations(),
        )
        context = SyncContext(client, connection, places, raw, PROVIDER)
        landed = list(read_windowed(context, [date(2026, 2, 20), *DAYS]))
    manifests = [one.manifest for one in landed if one.manifest is not None]
    work = Normalisation(PROVIDER, raw, connection, manifests, known_calendars(places, 4))
    found: dict[date, Counter[str]] = {day: Counter() for day in DAYS}
    orders: Counter[str] = Counter()
    for row in (row for batch in work.batches() for row in batch.to_pylist()):
        orders[row["order_id"]] += row["total"]
        of_day = found.get(row["business_date"], Counter())
        for name in ("net", "tax", "marketplace_tax"):
            of_day[name] += row[name]
        if (figure := NAMES.get(row["line_type"])) is not None:
            of_day[figure] += row["total"]
    assert work.bad == []
    assert {day: tuple(Decimal(sums[name]) for name in FIGURES) for day, sums in found.items()} == told(witness)
    spec = next(one for one in PROVIDER.tables if one.table == "payments")
    for row in transform(PROVIDER, spec, connection, places, raw, manifests).rows.to_pylist():
        orders[row["order_id"]] -= row["amount"] + row["tip"]
    (unpaid,) = [order["guid"] for order in witness.orders if not order["checks"][0]["payments"] and not order["voided"]
        and not order.get("excessFood")]  # fmt: skip
    assert {order for order, left in orders.items() if left} == {unpaid}
