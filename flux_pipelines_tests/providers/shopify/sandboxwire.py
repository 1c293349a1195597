"""A small world's shops over real HTTP, a clock that tests can move, and a client with a token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx

from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox
from flux_sandbox.shopify.api import ShopifySandbox
from flux_sandbox.world import World

END_DAY = date(2026, 11, 2)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 4, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


@contextmanager
def sandbox_of(clock: Clock, **options: Any) -> Iterator[RunningSandbox]:
    settings = {"history_days": 3, "end_day": END_DAY, "clock": clock, "rate_limit": 500_000, **options}
    with RunningSandbox(SandboxOptions(**settings)) as sandbox:
        yield sandbox


class Shopify:
    """A client of one shop."""

    def __init__(self, sandbox: RunningSandbox, shop: str = "harbor-shop", **token: Any) -> None:
        self.sandbox = sandbox
        self.http = httpx.Client(base_url=f"{sandbox.url}/shopify/shops/{shop}", timeout=60)
        self.shop = shop
        self.merchant = sandbox.world.merchant(shop)
        self.tokens: dict[str, Any] = {}
        self.sign_in(**token)

    def sign_in(self, **token: Any) -> None:
        wanted = {"merchant": self.shop, "provider": "shopify", **token}
        self.tokens = httpx.post(f"{self.sandbox.url}/sandbox/tokens", json=wanted).json()
        self.http.headers["X-Shopify-Access-Token"] = self.tokens["access_token"]

    def condition(self, **conditions: Any) -> dict[str, Any]:
        body = {"merchant": self.shop, **conditions}
        answer = httpx.post(f"{self.sandbox.url}/sandbox/shopify", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    def post(self, text: str, /, version: str = "2026-10", **variables: Any) -> httpx.Response:
        body = {"query": text, "variables": variables}
        return self.http.post(f"/admin/api/{version}/graphql.json", json=body)

    def ask(self, text: str, /, **variables: Any) -> Any:
        """The data of an answer that has no errors."""
        answer = self.post(text, **variables)
        assert answer.status_code == 200, answer.text
        found = answer.json(parse_float=Decimal)
        assert "errors" not in found, found["errors"]
        return found["data"]

    def errors(self, text: str, /, **variables: Any) -> list[dict[str, Any]]:
        """The errors of an answer."""
        answer = self.post(text, **variables)
        assert answer.status_code == 200, answer.text
        return answer.json()["errors"]  # type: ignore[no-any-return]

    def every(self, root: str, node: str, size: int = 100, **args: str) -> list[Any]:
        """Page a root connection to its end."""
        given = "".join(f", {name}: {value}" for name, value in args.items())
        text = f"query($after: String) {{ found: {root}(first: {size}, after: $after{given}) "
        text += f"{{ pageInfo {{ hasNextPage endCursor }} nodes {{ {node} }} }} }}"
        nodes: list[Any] = []
        after = None
        while True:
            found = self.ask(text, after=after)["found"]
            nodes += found["nodes"]
            if not found["pageInfo"]["hasNextPage"]:
                return nodes
            after = found["pageInfo"]["endCursor"]


def provider_of(world: World) -> ShopifySandbox:
    """The Shopify that listens to a world."""
    (found,) = {owner for one in world.listeners if isinstance(owner := getattr(one, "__self__", None), ShopifySandbox)}
    return found
