"""A partition as a value: what Dagster calls it, and back."""

from __future__ import annotations

from datetime import date

import dagster as dg
import pytest

from flux_pipelines.defs.partitions import CONNECTION, DAY, by_connection
from flux_pipelines.domain.partition import Partition, unit_of

NINTH = date(2026, 3, 9)
ACME = Partition("square:acme", NINTH)


def test_its_text_is_the_key_that_dagster_makes_of_the_two_dimensions() -> None:
    assert str(ACME) == dg.MultiPartitionKey({CONNECTION: "square:acme", DAY: "2026-03-09"}) == "square:acme|2026-03-09"
    assert Partition.parse(str(ACME)) == ACME


@pytest.mark.parametrize("text", ["", "square:acme", "2026-03-09", "square:acme|", "square:acme|today"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"key|isoformat"):
        Partition.parse(text)


def test_where_there_are_no_dates_the_unit_is_the_connection() -> None:
    assert unit_of("square:acme|2026-03-09") == ACME
    assert unit_of("square:acme") == "square:acme"


def test_they_are_grouped_by_connection_in_order() -> None:
    bravo = [Partition("square:bravo", date(2026, 3, day)) for day in (2, 1)]
    assert by_connection([*bravo, ACME]) == {
        "square:acme": [NINTH],
        "square:bravo": [date(2026, 3, 1), date(2026, 3, 2)],
    }
