"""The seeded world through the provider's own SQL comes to the truth, in every figure, to the last minor unit."""

from __future__ import annotations

from collections import Counter
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from flux_pipelines.domain.money import from_minor
from flux_pipelines_tests.sync.rawfiles import normalise
from flux_sandbox.options import SandboxOptions
from flux_sandbox.square.orders import OrderWriter
from flux_sandbox.truth import total_of, truth
from flux_sandbox.world import World

TENDERS = {"CASH": "cash", "CARD": "card", "WALLET": "card", "GIFT_CARD": "gift_card", "REFUND": "refund"}
GOODS = ("item", "custom_amount")


@pytest.mark.parametrize("handle", ["harbor", "sakura", "fjord"])
def test_sql_finds_the_truth(tmp_path: Path, handle: str) -> None:
    world = World(SandboxOptions(history_days=15, end_day=date(2026, 11, 5)))
    merchant = world.merchant(handle)
    write = OrderWriter()
    rows, work = normalise(tmp_path, [write(s) for s in world.sales.values() if s.location.merchant_id == merchant.id])
    assert work.bad == []
    told = total_of(truth(world, merchant=handle))[merchant.currency]

    def total(column: str, *line_types: str) -> Decimal:
        chosen = (row for row in rows if not line_types or row["line_type"] in line_types)
        return sum((row[column] for row in chosen), Decimal(0))

    found = {name: total(name) for name in ("gross", "discount", "net", "tax", "total")}
    found["tips"] = total("total", "tip")
    found["gift_cards"] = total("total", "gift_card")
    found["rounding"] = total("total", "rounding")
    found["service_charges"] = total("net", "service_charge")
    found["returns"] = sum((row["net"] for row in rows if row["kind"] == "return"), Decimal(0))
    assert found == {name: from_minor(told[name], merchant.currency) for name in found}
    assert total("quantity", *GOODS) == Decimal(told["units"])
    lines = [r for r in rows if r["kind"] in ("sale", "return") and r["line_type"] in (*GOODS, "gift_card")]
    assert len(lines) == told["lines"]
    tenders: Counter[str] = Counter()
    for name, amount in told["tenders"].items():
        tenders[TENDERS.get(name, "other")] += amount
    for name in ("cash", "card", "gift_card", "other", "refund"):
        assert total(f"tendered_{name}") == from_minor(tenders[name], merchant.currency), name
    sold = {row["order_id"] for row in rows if row["kind"] == "sale"}
    assert len(sold) == told["orders"]
    assert len({row["order_id"] for row in rows if row["kind"] == "return"}) == told["return_orders"]
    assert len({row["order_id"] for row in rows if row["kind"] == "void"}) == told["voids"]
