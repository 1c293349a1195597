"""From a provider's deliveries through a gateway that is killed five times to tables that equal the truth."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from flux_pipelines.defs import names
from flux_pipelines.state import NewEvent
from flux_pipelines_tests.defs.conftest import Home, open_home
from flux_pipelines_tests.defs.test_inbox import assert_equals_truth
from flux_pipelines_tests.defs.webhooks import SIGNATURE_KEY, Drain, days, payment, stub
from flux_pipelines_tests.gateway.storm import shuffled, storm
from flux_pipelines_tests.gateway.webhook_process import GatewayProcess
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

DELIVERIES = 10_000


@pytest.fixture
def home(environment: object) -> Iterator[Home]:
    with RunningSandbox(SandboxOptions(seed=12, history_days=4, rate_limit=1_000_000)) as sandbox:
        yield from open_home(sandbox)


def happenings(home: Home) -> list[NewEvent]:
    """Let things be sold, edited and refunded in three days at two merchants; return what Square says of it."""
    world, chance = home.sandbox.world, random.Random(7)
    events: list[NewEvent] = []
    for number in range(1_875):
        merchant = world.merchant(("harbor", "sakura")[number % 2])
        at = datetime.now(UTC) - timedelta(hours=chance.uniform(0, 60))
        sale = world.sell(merchant.locations[number % len(merchant.locations)].id, created=at)
        events += [payment(sale), stub(sale), payment(sale)]
        if number % 3 == 0:
            world.edit(sale.id, add_units=1)
            events.append(stub(sale))
        if number % 5 == 0:
            events += [payment(world.refund(sale.id)), stub(sale)]
    return events


@pytest.mark.long
def test_ten_thousand_deliveries_three_in_ten_twice_with_the_gateway_killed_five_times_become_few_runs_and_the_truth(
    home: Home,
) -> None:
    home.connect("harbor", "sakura")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with closing(Drain(home, port)) as drain:
        bodies = {one.event_id: one.body for one in happenings(home)}
        order = shuffled(list(bodies), DELIVERIES)
        gateway = GatewayProcess(home.runtime.settings.home, port)
        try:
            storm(gateway, drain.notification_url, drain.inbox, bodies, order, kills=5, key=SIGNATURE_KEY)
        finally:
            gateway.close()
        made = drain.all()
        assert drain.inbox.counts()["done"] == len(bodies)
        assert len(made) <= 4, [request.tags for request in made]
        for merchant in ("harbor", "sakura"):
            mine = [request for request in made if request.tags[names.CONNECTION_TAG] == f"square:{merchant}"]
            assert_equals_truth(home, merchant, *{day for request in mine for day in days(request)})
