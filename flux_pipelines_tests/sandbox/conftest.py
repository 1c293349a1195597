"""A small world over real HTTP, a clock that tests can move, and a client with a token."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from flux_pipelines.settings import PROJECT_ROOT
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

SHARED = PROJECT_ROOT.parent / "shared"
#: New York's clocks went back on the 1st: the day has 25 hours.
END_DAY = date(2026, 11, 2)
VERSION = {"Square-Version": "2026-09-16"}


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 4, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Square:
    """A client of the sandbox's Square."""

    def __init__(self, sandbox: RunningSandbox, merchant: str = "harbor", **token: Any) -> None:
        self.http = httpx.Client(base_url=sandbox.url, headers=VERSION, timeout=30)
        self.tokens = self.http.post("/sandbox/tokens", json={"merchant": merchant, **token}).json()
        self.http.headers["Authorization"] = f"Bearer {self.tokens['access_token']}"
        self.merchant = sandbox.world.merchant(merchant)
        self.locations = [location.id for location in self.merchant.locations]

    def search(self, body: dict[str, Any]) -> httpx.Response:
        return self.http.post("/v2/orders/search", json=body)

    def order(self, order_id: str) -> dict[str, Any]:
        """Return an order by its id."""
        answer = self.http.post("/v2/orders/batch-retrieve", json={"order_ids": [order_id]})
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["orders"][0])

    def everything(self, moment: str = "created_at", ids: list[str] | None = None, limit: int = 1000) -> list[Any]:
        """Page to the end, ten locations at a time."""
        ids = ids or self.locations
        orders: list[Any] = []
        for first in range(0, len(ids), 10):
            body = search_body(ids[first : first + 10], moment, limit=limit)
            while True:
                answer = self.search(body)
                assert answer.status_code == 200, answer.text
                page = answer.json()
                orders += page.get("orders", [])
                if "cursor" not in page:
                    break
                body["cursor"] = page["cursor"]
        return orders


def search_body(ids: list[str], moment: str = "created_at", **extra: Any) -> dict[str, Any]:
    """A search of everything that has ever happened."""
    states = ["COMPLETED", "CANCELED"] if moment == "closed_at" else ["OPEN", "COMPLETED", "CANCELED"]
    span = {"start_at": "2000-01-01T00:00:00Z", "end_at": "2100-01-01T00:00:00Z"}
    return {
        "location_ids": ids,
        "query": {
            "filter": {"date_time_filter": {moment: span}, "state_filter": {"states": states}},
            "sort": {"sort_field": moment.upper(), "sort_order": "ASC"},
        },
        **extra,
    }


def error_of(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, category and code of an error."""
    error = answer.json()["errors"][0]
    return answer.status_code, error["category"], error["code"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start(clock: Clock) -> Iterator[Callable[..., RunningSandbox]]:
    """Start sandboxes of the small world; they end with the test."""
    running: list[RunningSandbox] = []

    def begin(**options: Any) -> RunningSandbox:
        options = {"history_days": 3, "end_day": END_DAY, "clock": clock, **options}
        sandbox = RunningSandbox(SandboxOptions(**options))
        running.append(sandbox)
        return sandbox.__enter__()

    yield begin
    for sandbox in running:
        sandbox.stop()


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.exists():
        pytest.skip("the shared reference folder is not here")
    return SHARED


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
    """Check an answer or event against Square's OpenAPI description."""
    jsonschema = pytest.importorskip("jsonschema")
    spec = shared / "specs/square/square-api.json"
    if not spec.exists():
        pytest.skip("Square's OpenAPI description is not here")
    schemas = json.loads(spec.read_text(encoding="utf-8"))["components"]["schemas"]
    needed: dict[str, Any] = {}
    wanted = [
        "SearchOrdersResponse",
        "BatchRetrieveOrdersResponse",
        "ListLocationsResponse",
        "ListPaymentsResponse",
        "ListPaymentRefundsResponse",
        "SearchCatalogObjectsResponse",
        "BatchRetrieveInventoryCountsResponse",
        "SearchTimecardsResponse",
        "ObtainTokenResponse",
        "RevokeTokenResponse",
        "RetrieveTokenStatusResponse",
        *(name for name, schema in schemas.items() if schema.get("x-webhook")),
    ]
    while wanted:
        name = wanted.pop()
        # The description refers to a few schemas that it does not have (CatalogModifierToggleOverrideType).
        if name not in needed and name in schemas:
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
