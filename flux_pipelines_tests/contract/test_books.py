"""The contract suite, books: every figure that tables have of a provider is the sandbox's truth, and no check fails.

All providers are synced in one home, by real assets with their checks, on small pages and over a change of clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import pytest
import time_machine

from flux_pipelines.providers import witness
from flux_pipelines.providers.base import Window
from flux_pipelines.providers.registry import all_providers
from flux_pipelines_tests.any_provider import least_busy
from flux_pipelines_tests.contract.conftest import MOST_A_PAGE, providers
from flux_pipelines_tests.integration.truth_home import SyncedHome, synced_home
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

pytestmark = pytest.mark.parametrize("name", providers())

# Clocks go back in America on the first of November.
FIRST, LAST = date(2026, 10, 31), date(2026, 11, 3)
NOW = datetime(2026, 11, 12, 14, 2, tzinfo=UTC)  # by now every fee of a card is known
#: A part of the history, for questions about intervals.
BEGIN, DAYS = datetime(2026, 11, 1, tzinfo=UTC), timedelta(days=2)
#: Tables that are made of orders, whatever else a provider has.
ALWAYS = {"transactions", "transactions, orders", "daily_sales", "daily_item_demand"}


@dataclass
class Books:
    """A home with a merchant of every provider, synced; each one's connection by the provider's name."""

    home: SyncedHome
    keys: dict[str, str]
    failures: list[str]


def chosen(request: pytest.FixtureRequest) -> list[str]:
    """Return the providers that tests of this module are run for."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function) and item.path == request.path]
    return sorted({item.callspec.params["name"] for item in items})


@pytest.fixture(scope="module")
def books(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    options = SandboxOptions(
        seed=6,
        history_days=(LAST - FIRST).days + 1,
        end_day=LAST,
        rate_limit=1_000_000,
        most_a_page=MOST_A_PAGE,
        clock=lambda: NOW,
    )
    nobody = "http://127.0.0.1:9"  # forecasts have tests of their own
    with (
        time_machine.travel(NOW),
        RunningSandbox(options) as sandbox,
        synced_home(tmp_path_factory.mktemp("books"), sandbox.url, FIRST, nobody) as home,
    ):
        keys = {name: home.connect(least_busy(sandbox.world, name).handle, FIRST, LAST) for name in chosen(request)}
        (report,) = home.sync()
        yield Books(home, keys, report.failures)


def test_every_figure_is_the_truth(books: Books, name: str) -> None:
    findings = books.home.compare(books.keys[name])
    assert findings.wrong == [], "\n".join(findings.wrong)
    tables = {table.table for table in all_providers()[name].tables}
    wanted = ALWAYS | tables | ({"tie_out"} if "payments" in tables else set())
    assert {table for table, rows in findings.compared.items() if rows} >= wanted


def test_no_check_fails(books: Books, name: str) -> None:
    key = books.keys[name]
    others = [one for one in books.keys.values() if one != key]
    assert [text for text in books.failures if key in text or not any(one in text for one in others)] == []


def test_no_file_names_anybody(books: Books, name: str) -> None:
    key = books.keys[name]
    searched, found = books.home.personal(key)
    assert found == []
    assert books.home.people(key)
    assert searched > 100_000


def inside(instants: list[datetime], asked: Callable[[datetime, datetime], list[datetime]]) -> None:
    """An interval that begins and ends with something holds what it begins with, and not what it ends with."""
    some = sorted(set(instants))
    start, end = some[len(some) // 3], some[2 * len(some) // 3]
    assert start < end
    assert sorted(asked(start, end)) == sorted(at for at in instants if start <= at < end)


def test_an_interval_holds_its_beginning_and_not_its_end(books: Books, name: str) -> None:
    spec, runtime = all_providers()[name], books.home.runtime
    source: Any = runtime.source(runtime.state.connections.get(books.keys[name]))
    places = tuple(place.location_id for place in source.locations())[: source.max_locations_per_window]

    def orders(basis: Literal["created", "updated", "closed"]) -> Callable[[datetime, datetime], list[datetime]]:
        def asked(start: datetime, end: datetime) -> list[datetime]:
            pages = source.pages(Window(places, start, end), basis)
            found = {one.header.order_id: getattr(one.header, f"{basis}_at") for page in pages for one in page.orders}
            return list(found.values())

        return asked

    def records(stream: str) -> Callable[[datetime, datetime], list[datetime]]:
        def asked(start: datetime, end: datetime) -> list[datetime]:
            pages = source.read(stream, Window(places, start, end, start.date()))
            return list({bytes(one.raw): one.at for page in pages for one in page if one.at is not None}.values())

        return asked

    try:
        for basis in {"updated", source.verified_by, *(() if source.by_business_date else ("created",))}:
            inside(orders(basis)(BEGIN, BEGIN + DAYS), orders(basis))
        for stream in spec.streams:
            if stream.grain == "day" and stream.dates_a_window > 1 and stream.name != witness.STREAM:
                inside(records(stream.name)(BEGIN, BEGIN + DAYS), records(stream.name))
    finally:
        source.close()


def test_pages_are_small_and_many(books: Books, name: str) -> None:
    """Else the figures of this suite could be right though pages after the first one are never read."""
    runtime, key = books.home.runtime, books.keys[name]
    assert max(one.orders for one in runtime.raw.manifests(key, FIRST, LAST).values()) > MOST_A_PAGE
    source = runtime.source(runtime.state.connections.get(key))
    try:
        places = tuple(place.location_id for place in source.locations())[: source.max_locations_per_window]
        pages = [len(page.orders) for page in source.pages(Window(places, BEGIN, BEGIN + DAYS), "updated")]
    finally:
        source.close()
    assert len(pages) > 1
    assert max(pages) <= MOST_A_PAGE, "the provider's sandbox has `options.page` say how much a page holds"
