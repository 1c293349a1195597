"""What is particular to Bunch, which is like Clover. Run by test_fourth_provider.py, in a process that finds it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import msgspec
import pytest

from flux_pipelines.connections import connect_to_sandbox
from flux_pipelines.connections.sandbox_apps import register_at_sandbox
from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines_tests.contract.conftest import Connect, Played
from flux_sandbox.model import Merchant, Sale


def another(played: Played) -> Merchant:
    """Connect another merchant of Bunch's, with the settings that a person would have."""
    found = next(one for one in played.sandbox.world.merchants_of("bunch") if one is not played.merchant)
    key = f"bunch:{found.handle}"
    connect_to_sandbox(played.runtime, key, tenant="contract", url=played.sandbox.url, merchant=found.handle)
    return found


def sales_of(played: Played, merchant: Merchant) -> list[Sale]:
    return [sale for sale in played.sandbox.world.sales.values() if sale.location.merchant_id == merchant.id]


def test_one_delivery_of_bunch_lands_at_the_connections_of_its_merchants(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    played = connect("bunch")
    runtime, merchants = played.runtime, [played.merchant, another(played)]
    sales = {one.id: sales_of(played, one)[0] for one in merchants}
    changes = {one: [{"objectId": f"O:{sale.id}", "type": "UPDATE", "ts": sale.updated}] for one, sale in sales.items()}
    changes["NOBODY"] = [{"objectId": "O:X", "type": "CREATE", "ts": 1}]
    body = msgspec.json.encode({"appId": "ours", "merchants": changes})
    with RunningGateway(runtime) as gateway, caplog.at_level("WARNING", "flux_pipelines.gateway"):
        try:
            register_at_sandbox(runtime, played.sandbox.url, gateway.url)
            secrets, url = runtime.state.apps.secrets("bunch", purpose="test"), f"{gateway.url}/webhooks/bunch"
            asked = httpx.post(url, content=b'{"verificationCode": "ab-12"}')
            headers = {"x-bunch-auth": secrets["webhook_signature_key"]}
            answers = [httpx.post(url, content=body, headers=headers).status_code for _ in range(2)]
        finally:
            played.pull("webhooks/clear", subscriptions=True)
    assert (asked.status_code, answers) == (200, [200, 200])
    assert any("Enter the code" in record.getMessage() for record in caplog.records)
    events = runtime.state.inbox.pending("bunch")
    keys = {one.id: f"bunch:{one.handle}" for one in merchants}
    assert {event.account_id: event.connection_key or None for event in events} == {**keys, "NOBODY": None}
    assert len(events) == 3, "a second delivery of the same is the same"
    for event in events:
        if event.account_id == "NOBODY":
            continue
        source = runtime.source(runtime.state.connections.get(keys[event.account_id]))
        try:
            (stale,) = runtime.webhooks(played.spec).affected([(event.event_type, event.body)], source)
        finally:
            source.close()
        ((store, at),) = stale.sold
        assert (store, round(at.timestamp() * 1000)) == (event.account_id, sales[event.account_id].created)


def test_bunchs_limit_of_a_token_is_kept(connect: Connect) -> None:
    played = connect("bunch")
    other = another(played)
    source = played.runtime.source(played.runtime.state.connections.get(f"bunch:{other.handle}"))
    ids = [sale.id for sale in sales_of(played, other)][:48]
    began = time.monotonic()
    try:
        with ThreadPoolExecutor(12) as pool:
            found = [order for orders in pool.map(lambda id_: source.orders([id_]), ids) for order in orders]
    finally:
        source.close()
    assert len(found) == len(ids) == 48
    assert time.monotonic() - began >= 2.0, "16 at once, 16 a second later, and 16 after another"
