"""The official SDK, which we did not write, works against the sandbox."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flux_pipelines_tests.sandbox.conftest import Clock
from flux_sandbox.server import RunningSandbox

square = pytest.importorskip("square", reason="the official squareup SDK is not installed")


def search(client: object, location: str, cursor: str | None) -> object:
    return client.orders.search(  # type: ignore[attr-defined]
        location_ids=[location],
        cursor=cursor,
        limit=50,
        query={
            "filter": {
                "date_time_filter": {
                    "updated_at": {"start_at": "2026-01-01T00:00:00Z", "end_at": "2027-01-01T00:00:00Z"}
                },
                "state_filter": {"states": ["OPEN", "COMPLETED", "CANCELED"]},
            },
            "sort": {"sort_field": "UPDATED_AT", "sort_order": "ASC"},
        },
    )


def test_connects_lists_pages_retrieves_and_refreshes(start: Callable[..., RunningSandbox], clock: Clock) -> None:
    import httpx

    sandbox = start(token_lifetime=600)
    app = httpx.get(f"{sandbox.url}/sandbox/app").json()
    redirect = "http://127.0.0.1:1/callback"
    asked = {
        "client_id": app["client_id"],
        "scope": "MERCHANT_PROFILE_READ ORDERS_READ",
        "redirect_uri": redirect,
        "merchant": "harbor",
    }
    location = httpx.get(f"{sandbox.url}/oauth2/authorize", params=asked).headers["location"]
    anonymous = square.Square(token="none", base_url=sandbox.url)
    tokens = anonymous.o_auth.obtain_token(
        client_id=app["client_id"],
        client_secret=app["client_secret"],
        grant_type="authorization_code",
        code=httpx.URL(location).params["code"],
        redirect_uri=redirect,
    )
    client = square.Square(token=tokens.access_token, base_url=sandbox.url)
    locations = client.locations.list().locations
    assert len(locations) == 12
    where = locations[0].id
    seen, cursor, pages = [], None, 0
    while True:
        page = search(client, where, cursor)
        seen += page.orders  # type: ignore[attr-defined]
        cursor = page.cursor  # type: ignore[attr-defined]
        pages += 1
        if not cursor:
            break
    expected = [sale.id for _, sale in sandbox.world.between([where], "updated", 0, 2**60)]
    assert [order.id for order in seen] == expected
    assert pages > 2
    batch = client.orders.batch_get(order_ids=expected[:100])
    assert [order.id for order in batch.orders] == expected[:100]
    assert batch.orders[0].total_money.currency == "USD"

    clock.forward(601)
    with pytest.raises(square.core.api_error.ApiError) as expired:
        client.locations.list()
    assert expired.value.errors[0].code == "ACCESS_TOKEN_EXPIRED"
    fresh = anonymous.o_auth.obtain_token(
        client_id=app["client_id"],
        client_secret=app["client_secret"],
        grant_type="refresh_token",
        refresh_token=tokens.refresh_token,
    )
    client = square.Square(token=fresh.access_token, base_url=f"{sandbox.url}/square")
    assert len(client.locations.list().locations) == 12
    status = client.o_auth.retrieve_token_status()
    assert status.merchant_id == fresh.merchant_id
    revoked = anonymous.o_auth.revoke_token(
        client_id=app["client_id"],
        access_token=fresh.access_token,
        request_options={"additional_headers": {"Authorization": f"Client {app['client_secret']}"}},
    )
    assert revoked.success
