"""Every provider's webhooks the whole way: its sandbox's post, the gateway, the inbox, the sensor, runs, core tables.

How long that takes with daemons, `integration/test_daemon.py` measures; here is that it ends right, whoever sends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from flux_pipelines.connections import connect_to_sandbox
from flux_pipelines.connections.sandbox_apps import register_at_sandbox
from flux_pipelines.defs import names
from flux_pipelines.domain.partition import Partition
from flux_pipelines.gateway.overview import summaries
from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.providers.registry import all_providers
from flux_pipelines_tests.any_provider import least_busy
from flux_pipelines_tests.defs.conftest import Home, open_home
from flux_pipelines_tests.defs.webhooks import Drain, days
from flux_sandbox.options import SandboxOptions
from flux_sandbox.registry import simulated
from flux_sandbox.server import RunningSandbox
from flux_sandbox.shopify.ids import legacy

SHOP = "harbor-shop"
TELLING = [name for name, spec in all_providers().items() if spec.webhooks is not None and name in simulated()]


@dataclass
class Played:
    """A connected merchant, whose provider's events come in through a gateway."""

    home: Home
    drain: Drain
    provider: str
    merchant: str

    @property
    def key(self) -> str:
        return f"{self.provider}:{self.merchant}"

    def pull(self, what: str, **body: Any) -> dict[str, Any]:
        """Pull one of the sandbox's strings, and wait until the gateway has taken what is sent about it."""
        answer = httpx.post(f"{self.home.sandbox.url}/sandbox/{what}", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        assert found["webhooks"] > 0
        deadline = time.monotonic() + 30
        while httpx.get(f"{self.home.sandbox.url}/sandbox/webhooks").json()["pending"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return found

    def settle(self) -> list[str]:
        """Tick and run until no event waits; return the jobs that it took."""
        jobs = []
        for _ in range(20):
            requests = list(self.drain.tick(f"{self.provider}_webhooks").run_requests or ())
            for request in requests:
                assert self.drain.run(request).success
                jobs.append(str(request.job_name))
            sold = [r for r in requests if r.tags.get(names.STREAM_TAG) == "orders"]
            self.drain.core(*sorted({day for request in sold for day in days(request)}))
            counts = self.drain.inbox.counts()
            if not requests and not counts["assigned"] and not self.drain.inbox.pending(self.provider):
                break
        assert counts["failed"] == counts["received"] == counts["assigned"] == 0, counts
        return jobs

    def units(self, order: str) -> list[tuple[int, int]]:
        """How many units of an order core `transactions` says were sold, and how many are left."""
        return self.home.ask(
            "select coalesce(sum(quantity) filter (kind = 'sale'), 0)::int, sum(quantity)::int from transactions "
            f"where '{order}' in (order_id, source_order_id) and connection = '{self.key}'"
        )


Play = Callable[..., Played]


@pytest.fixture
def home(environment: object) -> Iterator[Home]:
    """A home whose sandbox ends yesterday, so that something can be sold today."""
    with RunningSandbox(SandboxOptions(seed=12, history_days=2, rate_limit=1_000_000)) as sandbox:
        yield from open_home(sandbox)


@pytest.fixture
def play(home: Home) -> Iterator[Play]:
    """A function that connects a merchant and lets its provider tell us of everything."""
    with RunningGateway(home.runtime) as gateway, closing(Drain(home)) as drain:
        home.runtime.state.apps.remove("square")
        assert register_at_sandbox(home.runtime, home.sandbox.url, gateway.url) == []

        def play(provider: str, merchant: str, **settings: Any) -> Played:
            key = f"{provider}:{merchant}"
            connect_to_sandbox(
                home.runtime, key, tenant="t", url=home.sandbox.url, merchant=merchant, settings=settings
            )
            home.instance.add_dynamic_partitions(f"{provider}_connections", [key])
            return Played(home, drain, provider, merchant)

        yield play


@pytest.mark.parametrize("provider", TELLING)
def test_a_sale_an_edit_and_a_refund_reach_the_core_tables(home: Home, play: Play, provider: str) -> None:
    owner = least_busy(home.sandbox.world, provider)
    played = play(provider, owner.handle)
    store = owner.locations[0].id
    order = str(played.pull("orders/sell", location_id=store)["order_id"])
    assert f"sync_{provider}" in played.settle()
    ((sold, left),) = played.units(order)
    assert sold == left > 0
    played.pull("orders/edit", order_id=order, add_units=2)
    played.settle()
    assert played.units(order) == [(sold + 2, sold + 2)]
    played.pull("orders/refund", order_id=order)
    played.settle()
    assert played.units(order) == [(sold + 2, 0)], "what was sold stays, what was given back is beside it"
    last = played.home.runtime.state.inbox.last_received()
    assert set(last) == {played.key}, "events that name a location are of its connection"


def test_a_customer_who_asks_is_forgotten_and_an_uninstalled_app_must_be_connected_again(
    play: Play,
) -> None:
    played = play("shopify", SHOP, keep_personal_data=1)  # else there would be nobody to forget
    world = played.home.sandbox.world
    store = world.merchant(SHOP).locations[0].id
    order = str(played.pull("orders/sell", location_id=store)["order_id"])
    customer = world.merchant(SHOP).customers[0]
    played.pull("orders/customer", order_id=order, customer=customer.id)
    played.settle()
    ((_, units),) = played.units(order)
    inbox = played.home.runtime.state.inbox
    assert any(customer.email.encode() in event.body for event in inbox.recent())

    played.pull("customers/erase", merchant=SHOP, customer=customer.id)
    assert played.settle() == ["erase_requested"]
    assert played.units(order) == [(units, units)], "the books stay"
    erasures = played.home.runtime.state.erasures
    (report,) = erasures.list(played.key)
    assert (report.asked_by, report.everything) == ("webhook", False)
    assert report.finished_at is not None
    assert report.events >= 2, "what told of the customer, and what asked to forget them"
    for event in inbox.recent():
        assert customer.email.encode() not in event.body
    held = [path for path in played.home.runtime.settings.home.rglob("*") if path.is_file()]
    assert not [path for path in held if customer.email.encode() in path.read_bytes()]
    runs = played.home.instance.get_runs()
    for text in (customer.email, customer.id):
        assert not [run for run in runs if text in f"{run.tags}{run.run_config}"]

    assert played.home.runtime.state.connections.get(played.key).status == "active"
    played.pull("uninstall", merchant=SHOP)
    played.settle()
    connection = played.home.runtime.state.connections.get(played.key)
    assert (connection.status, connection.status_reason) == (
        "needs_reauth", "the authorisation was revoked at Shopify",
    )  # fmt: skip
    page = next(one for one in summaries(played.home.runtime) if one.connection.key == played.key)
    assert (page.health.word, page.reconnectable) == ("Needs reconnecting", True)
    # Shopify asks for the shop's erasure two days later: it is carried out although nobody can sign in any more.
    played.pull("webhooks/emit", merchant=SHOP, type="shop/redact")
    assert played.settle() == ["erase_requested"]
    assert erasures.list(played.key)[0].everything
    connect_to_sandbox(played.home.runtime, played.key, tenant="t", url=played.home.sandbox.url, merchant=SHOP)
    assert played.home.runtime.state.connections.get(played.key).status == "active"


def test_a_deleted_order_is_gone_whatever_its_age_and_whatever_else_was_sold_that_day(play: Play) -> None:
    """Shopify names its id and nothing more, and does not give it any more: where it was is known from what is stored."""
    played = play("shopify", SHOP)
    home, world = played.home, played.home.sandbox.world
    store = world.merchant(SHOP).locations[0].id
    alone = str(played.pull("orders/late", location_id=store, hours=24 * 20)["order_id"])
    gone, stays = (str(played.pull("orders/sell", location_id=store)["order_id"]) for _ in range(2))
    practice = str(played.pull("orders/sell", location_id=store)["order_id"])
    world.sale(practice).test = True  # no row is made of it
    played.settle()
    ((raw_date,),) = home.ask(f"select distinct raw_date from transactions where order_id = '{alone}'")
    assert played.units(practice) == [(0, None)]
    left = played.units(stays)
    today = max(manifest.business_date for manifest in home.runtime.raw.everything(played.key).readable)
    before = _orders(home, played.key, today)

    for order in (alone, gone, practice):
        played.pull("orders/delete", order_id=order)
    assert played.settle() == ["sync_shopify", "sync_shopify"], "the day of the late one, and today"
    assert [played.units(order) for order in (alone, gone, practice)] == [[(0, None)]] * 3
    assert played.units(stays) == left
    assert _orders(home, played.key, today) == before - 2
    assert _orders(home, played.key, raw_date) == 0, "the day's only order: it may be empty now"
    assert home.ask(f"select count(*) from daily_sales where business_date = date '{raw_date}'") == [(0,)]
    assert home.runtime.state.alerts.open() == []
    assert played.drain.inbox.counts()["kept"] == 0


def test_a_day_that_comes_back_empty_though_not_all_of_its_orders_were_deleted_is_kept(play: Play) -> None:
    played = play("shopify", SHOP)
    home, world = played.home, played.home.sandbox.world
    store = world.merchant(SHOP).locations[0].id
    one, other = (str(played.pull("orders/late", location_id=store, hours=24 * 20)["order_id"]) for _ in range(2))
    played.settle()
    ((raw_date,),) = home.ask(f"select distinct raw_date from transactions where order_id in ('{one}', '{other}')")
    played.pull("orders/delete", order_id=one)
    world.sale(other).deleted = True  # nobody has said so
    (request,) = played.drain.tick("shopify_webhooks").run_requests or ()
    assert not played.drain.run(request).success
    assert _orders(home, played.key, raw_date) == 2
    assert [alert.kind for alert in home.runtime.state.alerts.open()] == ["came_back_empty"]


def test_a_deleted_order_of_a_day_that_was_never_fetched_takes_its_refund_with_it(home: Home, play: Play) -> None:
    """It was kept alone, for what it has in days that were fetched."""
    world = home.sandbox.world
    old = world.sell_late(24 * 20, world.merchant(SHOP).locations[0].id)
    world.refund(old.id)
    played = play("shopify", SHOP)
    today = datetime.now(ZoneInfo(old.location.timezone)).date()
    key = str(Partition(played.key, today))
    assert home.run("sync_shopify", key, key).success
    played.drain.core(today)
    order = str(legacy("Order", old.id))
    ((raw_date, units),) = home.ask(
        f"select raw_date, sum(quantity) from transactions where order_id = '{order}' and business_date = date '{today}' group by 1"
    )
    assert (raw_date < today, units < 0) == (True, True)

    played.pull("orders/delete", order_id=old.id)
    assert played.settle() == ["sync_shopify"]
    assert home.ask(f"select count(*) from shopify.transactions where order_id = '{order}'") == [(0,)]
    assert home.ask(f"select count(*) from transactions where order_id = '{order}'") == [(0,)]
    assert home.runtime.raw.landed(played.key, [raw_date]) == set(), "that day is not fetched for it"


def _orders(home: Home, connection: str, day: date) -> int:
    manifest = home.runtime.raw.read_manifest(connection, day)
    assert manifest is not None
    return manifest.orders
