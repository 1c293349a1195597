"""However a range is cut into syncs, and in whatever order they are made, the tables are the same."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pyarrow as pa
import pytest

from flux_pipelines.defs.consistency import faults
from flux_pipelines.domain.tables import TIE_OUT, TRANSACTIONS
from flux_pipelines.providers.registry import provider as provider_named
from flux_pipelines_tests.any_provider import hurried
from flux_pipelines_tests.defs.bare import bring_in, connected, contents, fingerprints
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

KEY = "square:sakura"
TOKYO = ZoneInfo("Asia/Tokyo")
FIRST, LAST = date(2026, 3, 4), date(2026, 3, 9)
DAYS = [FIRST + timedelta(days=n) for n in range((LAST - FIRST).days + 1)]


def stamp(day: date, hour: float) -> str:
    wall = datetime(day.year, day.month, day.day, tzinfo=TOKYO) + timedelta(hours=hour)
    return wall.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Till:
    """Makes orders and payments of one store as Square would give them."""

    def __init__(self, url: str, store: str, seed: int) -> None:
        self._url = url
        self._store = store
        self._chance = random.Random(seed)
        self._number = 0

    def _post(self, kind: str, document: dict[str, Any]) -> None:
        body = {"location_id": self._store, "kind": kind, "document": {"location_id": self._store, **document}}
        httpx.post(f"{self._url}/sandbox/documents", json=body).raise_for_status()

    def sell(self, made: date, paid: Sequence[date], *, whole: bool = True, state: str = "COMPLETED") -> str:
        """Ring up an order; pay it in as many parts as there are dates, and all of it if `whole`."""
        self._number += 1
        order, total = f"CUT{self._number}", 100 * self._chance.randrange(10, 90)

        def money(amount: int) -> dict[str, Any]:
            return {"amount": amount, "currency": "JPY"}

        part = total // (len(paid) + (not whole)) if paid else 0
        amounts = [part] * len(paid)
        if whole and amounts:
            amounts[-1] += total - sum(amounts)
        moments = [stamp(day, self._chance.uniform(9, 23)) for day in sorted(paid)]
        changed = max([stamp(made, 8), *moments])
        tenders = [
            {"id": f"{order}P{n}", "location_id": self._store, "transaction_id": order, "created_at": at,
             "amount_money": money(amount), "type": "CARD", "payment_id": f"{order}P{n}", "card_details": {"status": "CAPTURED"}}
            for n, (at, amount) in enumerate(zip(moments, amounts, strict=True))
        ]  # fmt: skip
        line = {"uid": "a", "name": "Catering", "quantity": "1", "item_type": "ITEM", "base_price_money": money(total),
                "variation_total_price_money": money(total), "total_money": money(total), "total_tax_money": money(0)}  # fmt: skip
        document = {
            "id": order, "state": state, "version": 1, "created_at": stamp(made, 8), "updated_at": changed,
            "line_items": [line], "total_money": money(total), "net_amounts": {"total_money": money(total)},
            "net_amount_due_money": money(total - sum(amounts)), "tenders": tenders,
            **({"closed_at": changed} if state == "COMPLETED" else {}),
        }  # fmt: skip
        self._post("orders", document)
        for tender in tenders:
            self._post("payments", {
                "id": tender["id"], "order_id": order, "created_at": tender["created_at"], "updated_at": tender["created_at"],
                "amount_money": tender["amount_money"], "total_money": tender["amount_money"], "status": "COMPLETED",
                "source_type": "CARD", "card_details": {"status": "CAPTURED", "card": {"card_brand": "VISA"}},
            })  # fmt: skip
        return order


def sold(till: Till, chance: random.Random) -> None:
    """Shapes whose dates differ: tabs over midnight, invoices in parts, orders of before the range, pre-orders, deposits."""
    before = FIRST - timedelta(days=5)
    for _ in range(14):
        made = chance.choice([before, *DAYS])
        later = [day for day in DAYS if day >= made]
        paid = sorted(chance.sample(later, min(len(later), chance.choice([0, 1, 1, 1, 2, 3]))))
        whole = bool(paid) and chance.random() < 0.75
        state = "COMPLETED" if whole and chance.random() < 0.7 else "OPEN"
        till.sell(made, paid, whole=whole, state=state)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with RunningSandbox(SandboxOptions(seed=21, end_day=LAST, history_days=3, rate_limit=1_000_000)) as running:
        (store,) = running.world.merchant("sakura").locations
        sold(Till(running.url, store.id, seed=3), random.Random(5))
        yield running


def made_of(cut: Sequence[Sequence[date]], folder: Path, sandbox: RunningSandbox) -> dict[str, list[tuple[Any, ...]]]:
    start = FIRST - timedelta(days=10)
    with connected(folder, sandbox, KEY, start, requests_per_minute=1_000_000) as runtime:
        for days in cut:
            bring_in(runtime, KEY, days)
        return contents(runtime)


def cuts(seed: int) -> list[list[date]]:
    """Cut the range at random, and shuffle the pieces."""
    chance = random.Random(seed)
    pieces: list[list[date]] = [[]]
    for day in DAYS:
        pieces[-1].append(day)
        if chance.random() < 0.5 and day != LAST:
            pieces.append([])
    chance.shuffle(pieces)
    return pieces


@pytest.mark.long
def test_the_tables_are_the_same_however_a_range_is_cut(sandbox: RunningSandbox, tmp_path: Path) -> None:
    whole = made_of([DAYS], tmp_path / "whole", sandbox)
    assert len({row for row in whole["transactions"] if "CUT" in str(row)}) > 8
    assert whole["open_items"]
    for name, cut in {
        "backwards": [[day] for day in reversed(DAYS)],
        "cut at random": cuts(1),
    }.items():
        found = made_of(cut, tmp_path / name.replace(" ", "-"), sandbox)
        for table, rows in found.items():
            assert rows == whole[table], (name, table)
    columns = [column.name for column in TIE_OUT]
    gap, held = columns.index("gap"), columns.index("deposits")
    assert {row[gap] for row in whole["tie_out"]} == {0}, "every cent is explained"
    assert sum(row[held] for row in whole["tie_out"]) > 0, (
        "part-paid orders do not count yet, and what was paid is held"
    )


# --- A year ---

LONG = int(os.environ.get("TRUTH_DAYS", "0"))


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
@pytest.mark.skipif(not LONG, reason="TRUTH_DAYS says how many days the long run has")
@pytest.mark.parametrize("key", ["square:sakura", "toast:harbor-kitchen", "shopify:fjord-shop"])
def test_a_year_is_the_same_day_by_day_as_one_range_and_in_random_order(tmp_path: Path, key: str) -> None:
    provider, _, merchant = key.partition(":")
    last = datetime.now(UTC).date() - timedelta(days=6)  # since then, every card fee has become known
    days = [last - timedelta(days=n) for n in reversed(range(LONG))]
    chance, left = random.Random(7), list(days)
    pieces = []
    while left:
        length = chance.randrange(1, 61)
        pieces.append(left[:length])
        left = left[length:]
    chance.shuffle(pieces)
    options = SandboxOptions(seed=7, history_days=LONG, rate_limit=1_000_000, end_day=last)
    with RunningSandbox(options, process=True) as sandbox:
        found = {}
        for name, cut in {"whole": [days], "random": pieces, "day by day": [[day] for day in days]}.items():
            began = time.monotonic()
            home = tmp_path / name.replace(" ", "-")
            with connected(home, sandbox, key, days[0], merchant, **hurried(provider_named(provider))) as runtime:
                for piece in cut:
                    bring_in(runtime, key, piece)
                found[name] = fingerprints(runtime)
            print(f"{key}, {days[0]} to {last}, {name}: {time.monotonic() - began:.0f} s, {found[name]}")
    assert all(rows for rows, *_ in found["whole"].values())
    assert found["random"] == found["whole"]
    assert found["day by day"] == found["whole"]


def test_what_is_on_two_dates_or_on_none_is_found(sandbox: RunningSandbox, tmp_path: Path) -> None:
    with connected(tmp_path, sandbox, KEY, FIRST, requests_per_minute=1_000_000) as runtime:
        bring_in(runtime, KEY, DAYS[-2:])
        assert faults(runtime) == []
        # An order of the first date stands on the second one too, and nobody has told the core table.
        first, second = DAYS[-2:]
        part = TRANSACTIONS.named("square/transactions")
        moved, there = (runtime.lake.read(part, where={"raw_date": day}).read_all() for day in (first, second))
        moved = moved.slice(0, 1)
        order = moved["order_id"][0].as_py()
        for name in ("raw_date", "business_date"):
            number = moved.schema.get_field_index(name)
            moved = moved.set_column(number, moved.schema.field(name), pa.array([second], pa.date32()))
        runtime.lake.replace(part, pa.concat_tables([there, moved]), [{"connection": KEY, "raw_date": second}])
        orders, lines, lacking = faults(runtime)
    assert (orders.connection, orders.dates) == (KEY, (first, second))
    assert orders.what == f"1 orders stand twice in square/transactions: {order}"
    assert f"1 lines stand twice in square/transactions: {order} / " in lines.what
    assert lacking.what == f"transactions does not have the rows that square/transactions has of {second}"
