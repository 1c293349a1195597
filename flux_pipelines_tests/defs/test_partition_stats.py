"""What is shown of a partition: amounts written exactly, previews, plots, and the partitions' own arithmetic."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from xml.etree import ElementTree

import pytest
import time_machine

from flux_pipelines.defs import plots
from flux_pipelines.defs.metadata import amounts, money, preview
from flux_pipelines.defs.partitions import business_days, ranges
from flux_pipelines.domain.business_day import BusinessCalendar, last_closed

DAY = date(2026, 3, 9)


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        ("817860.0500", "USD", "817,860.05"),
        ("63779.0000", "JPY", "63,779"),
        ("-0.5", "USD", "-0.50"),
        ("1.2345", "USD", "1.2345"),
        ("0.0000", "BHD", "0.000"),
        ("99999999999999.9999", "EUR", "99,999,999,999,999.9999"),
    ],
)
def test_amounts_are_written_exactly_with_their_currencys_places(amount: str, currency: str, text: str) -> None:
    assert money(Decimal(amount), currency) == text
    assert amounts("net", {currency: Decimal(amount)}) == {f"net {currency}": text}


def test_a_preview_is_a_table_whatever_is_in_the_cells() -> None:
    shown = preview(("name", "amount"), [("a | b\nc", Decimal("1.500")), (None, 3)]).md_str
    assert shown == "| name | amount |\n| --- | --- |\n| a \\| b c | 1.50 |\n|  | 3 |"
    picture = preview(("name",), [("![x](/graphql?query=mutation)",)]).md_str.splitlines()[-1]
    assert picture == "| \\!\\[x\\](/graphql?query=mutation) |"


def test_a_preview_calls_stores_by_their_names() -> None:
    records = [("L1", 1), ("L2", 2), (None, 3)]
    shown = preview(("location_id", "n"), records, places={"L1": "Back | Bay"}).md_str
    assert shown == "| location | n |\n| --- | --- |\n| Back \\| Bay | 1 |\n| L2 | 2 |\n|  | 3 |"
    named = preview(("location_id", "name"), [("L1", "Back Bay")], places={"L1": "Back Bay"}).md_str
    assert named == "| location_id | name |\n| --- | --- |\n| L1 | Back Bay |"


@pytest.mark.parametrize("values", [[], [0, 0], [5], [3, -2, 7], [10**12, 1]])
def test_plots_are_pictures_whatever_the_values(values: list[int]) -> None:
    points = [(DAY + timedelta(days=n), Decimal(value)) for n, value in enumerate(values)]
    later = [(DAY + timedelta(days=30 + n), Decimal(value)) for n, value in enumerate(values)]
    for svg in (
        plots.bars("A & B <c>", points, highlight=DAY),
        plots.lines("d", points, later),
        plots.lines("e", [], later),
    ):
        root = ElementTree.fromstring(svg)
        assert root.tag.endswith("svg")
        for bar in root.iter("{http://www.w3.org/2000/svg}rect"):
            assert not str(bar.get("height")).startswith("-")
    ElementTree.fromstring(plots.bars("\x1b[2J\x00 \u202e", points))  # no XML has such characters
    assert plots.markdown("<svg/>", "a](x) ![b").md_str.startswith("![a\\](x) \\!\\[b](data:")
    assert plots.markdown("<svg/>", "x").md_str == "![x](data:image/svg+xml;base64,PHN2Zy8+)"


def test_ranges_are_consecutive_days() -> None:
    days = [DAY + timedelta(days=n) for n in (0, 1, 2, 5, 7, 8)]
    assert ranges(reversed(days)) == [(days[0], days[2]), (days[3], days[3]), (days[4], days[5])]
    assert ranges([]) == []


def test_todays_partition_is_there_for_the_first_store_on_earth_to_open(environment: object) -> None:
    # 10:00 UTC: the 10th begins in Kiribati (UTC+14).
    with time_machine.travel(datetime(2026, 3, 9, 9, 59, tzinfo=UTC), tick=False):
        assert business_days().get_last_partition_key() == "2026-03-09"
    with time_machine.travel(datetime(2026, 3, 9, 10, 1, tzinfo=UTC), tick=False):
        assert business_days().get_last_partition_key() == "2026-03-10"
        assert business_days().get_first_partition_key() == "2026-03-01"


@pytest.mark.parametrize(
    ("now", "cutoff", "closed"),
    [
        ("2026-03-09T15:29", 0, "2026-03-08"),  # the 9th ended in Tokyo at 15:00; half an hour of grace
        ("2026-03-09T15:31", 0, "2026-03-09"),
        ("2026-03-09T15:31", 4, "2026-03-08"),  # a bar's 9th ends at four in the morning
        ("2026-03-09T19:31", 4, "2026-03-09"),
    ],
)
def test_a_day_has_closed_when_it_has_ended_at_the_last_store(now: str, cutoff: int, closed: str) -> None:
    tokyo, auckland = BusinessCalendar("Asia/Tokyo", cutoff), BusinessCalendar("Pacific/Auckland", cutoff)
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert str(last_closed([auckland, tokyo], at)) == closed
