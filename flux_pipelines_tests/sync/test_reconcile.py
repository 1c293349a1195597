from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from flux_pipelines.lake.raw import RawManifest
from flux_pipelines.sync.reconcile import Count, difference

LANDED = RawManifest(
    connection="square:acme",
    business_date=date(2026, 3, 1),
    file="orders.ndjson.zst",
    orders=3,
    totals={"USD": 1250},
    states={"COMPLETED": 3},
    bytes=1,
    compressed_bytes=1,
    sha256="",
    fetched_at=datetime(2026, 3, 2, tzinfo=UTC),
)


@pytest.mark.parametrize(
    ("states", "totals", "told"),
    [
        ({"COMPLETED": 3}, {"USD": 1250}, ""),
        ({"COMPLETED": 3}, {"USD": 1250, "CAD": 0}, ""),
        # Orders in a currency that nobody knows are in quarantine with that reason: they are not missing.
        ({"COMPLETED": 3}, {"USD": 1250, "QQQ": 700}, ""),
        ({"COMPLETED": 4}, {"USD": 1250}, "4 orders completed, landed were 3"),
        ({"COMPLETED": 3}, {"USD": 1200}, "totals in USD (minor units) come to 1200, landed were 1250"),
        ({"COMPLETED": 3}, {"USD": 1250, "CAD": 5}, "totals in CAD (minor units) come to 5, landed were 0"),
    ],
)
def test_a_day_is_compared_with_what_was_landed(states: dict[str, int], totals: dict[str, int], told: str) -> None:
    assert difference(LANDED, Count(states, totals)) == told
