"""Answers and Square's own OpenAPI description agree."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from flux_pipelines_tests.sandbox.conftest import Square, search_body
from flux_sandbox.server import RunningSandbox


@pytest.mark.parametrize("handle", ["harbor", "sakura", "fjord"])
def test_orders_are_what_square_describes(
    start: Callable[..., RunningSandbox], validate: Callable[[str, Any], None], handle: str
) -> None:
    square = Square(start(history_days=4 if handle == "harbor" else 12, end_day=date(2026, 11, 2)), handle)
    orders = square.everything(ids=square.locations[:8])
    assert any(order.get("returns") for order in orders)
    # Every tenth ordinary order, and every one with anything unusual in it.
    unusual = {"returns", "discounts", "service_charges", "rounding_adjustment", "fulfillments"}
    chosen = [order for i, order in enumerate(orders) if i % 10 == 0 or (i % 2 and unusual & set(order))]
    for order in chosen:
        validate("BatchRetrieveOrdersResponse", {"orders": [order]})


def test_the_other_answers_are_what_square_describes(
    start: Callable[..., RunningSandbox], validate: Callable[[str, Any], None]
) -> None:
    square = Square(start(history_days=2))
    validate("ObtainTokenResponse", square.tokens)
    validate("ListLocationsResponse", square.http.get("/v2/locations").json())
    validate("RetrieveTokenStatusResponse", square.http.post("/oauth2/token/status").json())
    page = square.search(search_body(square.locations[:2], limit=5))
    validate("SearchOrdersResponse", page.json())
    validate("SearchOrdersResponse", square.search({}).json())
    ids = [order["id"] for order in page.json()["orders"]]
    validate(
        "BatchRetrieveOrdersResponse", square.http.post("/v2/orders/batch-retrieve", json={"order_ids": ids}).json()
    )
    app = square.http.get("/sandbox/app").json()
    body = {"client_id": app["client_id"], "access_token": square.tokens["access_token"]}
    header = {"Authorization": f"Client {app['client_secret']}"}
    validate("RevokeTokenResponse", square.http.post("/oauth2/revoke", json=body, headers=header).json())
