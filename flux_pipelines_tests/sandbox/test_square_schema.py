"""Answers and Square's own OpenAPI description agree."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from flux_pipelines.sandbox.server import RunningSandbox
from flux_pipelines_tests.sandbox.conftest import Square, search_body

jsonschema = pytest.importorskip("jsonschema")


def _nullable(node: Any) -> Any:
    """Rewrite OpenAPI 3.0's `nullable` as JSON Schema."""
    if isinstance(node, list):
        return [_nullable(item) for item in node]
    if not isinstance(node, dict):
        return node
    result = {key: _nullable(value) for key, value in node.items() if key not in ("nullable", "example", "description")}
    if node.get("nullable") is True:
        return {"anyOf": [result, {"type": "null"}]}
    return result


def _closed(schema: Any) -> Any:
    """Allow no property that the description does not have: a misspelt field must not pass."""
    if isinstance(schema, dict) and schema.get("type") == "object" and "properties" in schema:
        return {**schema, "additionalProperties": False}
    return schema


@pytest.fixture(scope="session")
def validate(shared: Path) -> Callable[[str, Any], None]:
    spec = shared / "specs/square/square-api.json"
    if not spec.exists():
        pytest.skip("Square's OpenAPI description is not here")
    schemas = json.loads(spec.read_text(encoding="utf-8"))["components"]["schemas"]
    needed: dict[str, Any] = {}
    wanted = [
        "SearchOrdersResponse",
        "BatchRetrieveOrdersResponse",
        "RetrieveOrderResponse",
        "ListLocationsResponse",
        "ObtainTokenResponse",
        "RevokeTokenResponse",
        "RetrieveTokenStatusResponse",
    ]
    while wanted:
        name = wanted.pop()
        if name not in needed:
            needed[name] = _closed(_nullable(schemas[name]))
            wanted += [ref.split("/")[-1] for ref in _references(needed[name])]
    document = {"components": {"schemas": needed}}
    validators: dict[str, Any] = {}

    def check(name: str, body: Any) -> None:
        if name not in validators:
            schema = {**document, "$ref": f"#/components/schemas/{name}"}
            validators[name] = jsonschema.Draft202012Validator(schema)
        problems = [f"{list(e.absolute_path)}: {e.message[:200]}" for e in validators[name].iter_errors(body)]
        assert problems == []

    return check


def _references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [ref for item in node for ref in _references(item)]
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [ref for value in node.values() for ref in _references(value)]
    return []


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
        validate("RetrieveOrderResponse", {"order": order})


def test_the_other_answers_are_what_square_describes(
    start: Callable[..., RunningSandbox], validate: Callable[[str, Any], None]
) -> None:
    square = Square(start(history_days=2))
    validate("ObtainTokenResponse", square.tokens)
    validate("ListLocationsResponse", square.http.get("/v2/locations").json())
    validate("RetrieveTokenStatusResponse", square.http.post("/oauth2/token/status").json())
    page = square.search(search_body(square.locations[:2], limit=5))
    validate("SearchOrdersResponse", page.json())
    validate("SearchOrdersResponse", square.search(search_body(square.locations, return_entries=True)).json())
    validate("SearchOrdersResponse", square.search({}).json())
    ids = [order["id"] for order in page.json()["orders"]]
    validate(
        "BatchRetrieveOrdersResponse", square.http.post("/v2/orders/batch-retrieve", json={"order_ids": ids}).json()
    )
    validate("RetrieveOrderResponse", square.http.get("/v2/orders/none").json())
    app = square.http.get("/sandbox/app").json()
    body = {"client_id": app["client_id"], "access_token": square.tokens["access_token"]}
    header = {"Authorization": f"Client {app['client_secret']}"}
    validate("RevokeTokenResponse", square.http.post("/oauth2/revoke", json=body, headers=header).json())
