"""Everything a Shopify client needs for a test over a real wire."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flux_pipelines.domain.connection import Connection
from flux_pipelines.providers.base import OAuthContext, SourceContext
from flux_pipelines.providers.shopify import PROVIDER
from flux_pipelines.providers.shopify.client import ShopifyClient
from flux_pipelines.providers.shopify.oauth import ShopifyOAuth
from flux_pipelines.transport import RetryPolicy
from flux_pipelines_tests.transport.server import Audit, Reply, Seen, StaticToken, transport

TOKEN = "shpat_0123456789abcdef0123456789abcdef"
SECRET = "hush-hush-hush"
COST = {
    "requestedQueryCost": 100,
    "actualQueryCost": 40,
    "throttleStatus": {"maximumAvailable": 2000.0, "currentlyAvailable": 1900, "restoreRate": 100.0},
}


@contextmanager
def shopify(
    url: str,
    folder: Path,
    token: str = TOKEN,
    audit: Audit | None = None,
    retry: RetryPolicy | None = None,
    **settings: Any,
) -> Iterator[ShopifyClient]:
    connection = Connection("shopify:test", "tenant", settings={"base_url": url, **settings})
    folder.mkdir(parents=True, exist_ok=True)
    with transport(folder, audit, retry_policy=retry or RetryPolicy(attempts=12, waiting=False)) as made:
        client = ShopifyClient(SourceContext(PROVIDER, connection, StaticToken(token), made))
        try:
            yield client
        finally:
            client.close()


@contextmanager
def oauth(url: str, folder: Path, client_id: str = "app", client_secret: str = SECRET) -> Iterator[ShopifyOAuth]:
    with transport(folder) as made:
        client = ShopifyOAuth(OAuthContext(PROVIDER, url, client_id, client_secret, made, "shopify:test"))
        try:
            yield client
        finally:
            client.close()


Answer = Callable[[str, Mapping[str, Any]], Any]


def graphql(answer: Answer, seen: list[tuple[str, dict[str, Any]]] | None = None) -> Callable[[Seen], Reply]:
    """Return a script that answers GraphQL: `answer` gets the operation's name and variables, and returns `data` or a Reply."""

    def script(request: Seen) -> Reply:
        if not request.path.endswith("/graphql.json"):
            found = answer(request.path, {})
            return found if isinstance(found, Reply) else Reply(200, json.dumps(found).encode())
        body = json.loads(request.body)
        name = body["query"].split("(")[0].split("{")[0].split()[1]
        if seen is not None:
            seen.append((name, body["variables"]))
        found = answer(name, body["variables"])
        if isinstance(found, Reply):
            return found
        return Reply(200, json.dumps({"data": found, "extensions": {"cost": COST}}).encode())

    return script


def errors(code: str, cost: Mapping[str, Any] | None = None, message: str = "it failed", status: int = 200) -> Reply:
    """Return an answer that failed, as Shopify's do: with status 200."""
    body: dict[str, Any] = {"errors": [{"message": message, "extensions": {"code": code}}]}
    if cost is not None:
        body["extensions"] = {"cost": cost}
    return Reply(status, json.dumps(body).encode())
