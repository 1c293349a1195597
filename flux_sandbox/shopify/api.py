"""Shopify as the sandbox plays it: its addresses, tokens, versions, costs and error bodies, over the shared world.

A shop's address is `/shops/{shop}`, as `{shop}.myshopify.com` is Shopify's; without it the token says whose shop it is. Every
GraphQL request takes one path (`_serve`): arrival logged, a fault perhaps drawn, then shop, token and version are checked, the
query is validated against Shopify's schema, paid from the shop's bucket, and executed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flux_sandbox.answers import Body, actor, needed, number
from flux_sandbox.corrupt_response import corrupt
from flux_sandbox.oauth import AccessToken
from flux_sandbox.options import CLIENT_ID, CLIENT_SECRET
from flux_sandbox.provider import AuthorisedSandbox, ProxyError, raise_fault
from flux_sandbox.shopify import documents as given
from flux_sandbox.shopify.bulk import BulkOperations
from flux_sandbox.shopify.cost import MOST_COST, Bucket, cost_of
from flux_sandbox.shopify.errors import FAULTS, REFUSALS, HttpError, Throttled, throttled, too_costly
from flux_sandbox.shopify.execute import Execution
from flux_sandbox.shopify.oauth import Authority
from flux_sandbox.shopify.plan import Plan
from flux_sandbox.shopify.queries import Refused, body_of, compiled, has_cursor
from flux_sandbox.shopify.root import Root, version_for
from flux_sandbox.shopify.shop import Shop
from flux_sandbox.shopify.values import Call, invalid_cursor
from flux_sandbox.shopify.webhooks import Webhooks

if TYPE_CHECKING:
    from flux_sandbox.documents import Found
    from flux_sandbox.events import WorldEvent
    from flux_sandbox.model import Merchant
    from flux_sandbox.options import SandboxOptions
    from flux_sandbox.world import World

_JSON = "application/json; charset=utf-8"
_ENCODE = msgspec.json.Encoder().encode


class ShopifySandbox(AuthorisedSandbox[Authority]):
    """Shopify's side of the wire."""

    name = "shopify"
    document_kinds = given.KINDS

    def __init__(self, world: World, options: SandboxOptions) -> None:
        self.world = world
        self.options = options
        self.authority = Authority(world)
        self.shops = {merchant.id: Shop(world, merchant) for merchant in world.merchants_of("shopify")}
        self.webhooks = Webhooks(world, self.authority, self.shops)
        self.bulk = BulkOperations(world.clock)
        self._buckets = {id_: Bucket(options.rate_limit) for id_ in self.shops}
        self._refusing: dict[str, int] = {}
        world.listeners.append(self._hear)

    @property
    def routes(self) -> list[Route]:
        """The paths that Shopify serves, for a shop by its address or by the token."""
        routes = [
            Route("/bulk/{token}.jsonl", self._result, methods=["GET"]),
            Route("/sandbox/shopify", actor(self._control), methods=["POST"]),
        ]
        for root in ("/shops/{shop}", ""):
            routes += [
                Route(f"{root}/admin/oauth/authorize", self._authorize, methods=["GET"]),
                Route(f"{root}/admin/oauth/access_token", self._token, methods=["POST"]),
                Route(f"{root}/admin/api/{{version}}/graphql.json", self._graphql, methods=["POST"]),
            ]
        return routes

    def _hear(self, world_event: WorldEvent) -> None:
        shop = self.shops.get(world_event.merchant.id)
        if shop is None:
            return
        shop.hear(world_event)
        if world_event.kind == "uninstalled":
            self.authority.revoke(world_event.merchant)
        else:
            self.webhooks.hear(world_event)

    # What a test can make happen

    def find_by(self, order: Mapping[str, Any]) -> Found:
        """Return what an order that was taken in is found by."""
        return given.find_by(order)

    def app(self, url: str) -> Mapping[str, Any]:
        """Return the settings and secrets of the app as registered here."""
        return {
            "settings": {"base_url": f"{url}/shopify/shops/{{shop}}"},
            "secrets": {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET},
        }

    def _control(self, body: Body) -> Any:
        """Set a shop's conditions: `status` answered to everything (0: none), `fail_bulk` operations, `points` left, `restore_rate`."""
        merchant = self.world.merchant(needed(body, "merchant"))
        bucket = self._buckets[merchant.id]
        if "status" in body:
            self._refusing[merchant.id] = int(number(body, "status", 0))
        if "fail_bulk" in body:
            self.bulk.failing[merchant.id] = int(number(body, "fail_bulk", 0, 0))
        if "restore_rate" in body:
            bucket.set_rate(number(body, "restore_rate", 100, 1))
        if "points" in body:
            bucket.left = number(body, "points", 0, 0)
        return {"merchant": merchant.handle, "throttleStatus": bucket.status()}

    # OAuth

    def _shop_of(self, request: Request) -> Merchant | None:
        """Return the shop that the address names, if it does.

        Raises:
            HttpError: 404: no shop is called so.

        """
        name = request.path_params.get("shop")
        return self.authority.choose(name) if name else None

    async def _authorize(self, request: Request) -> Response:
        self.world.request_log.endpoints["authorize"] += 1
        try:
            return self.authority.authorize(request.query_params, self._shop_of(request))
        except HttpError as error:
            return Response(error.body, error.status, media_type=_JSON)

    async def _token(self, request: Request) -> Response:
        raw = await request.body()
        self.world.request_log.endpoints["token"] += 1
        try:
            body: Any = msgspec.json.decode(raw)
        except msgspec.DecodeError:
            body = None
        one_time = isinstance(body, dict) and body.get("grant_type") != "refresh_token"
        fault = "" if one_time else self.world.faults.draw(answer=False)
        try:
            raise_fault(self.world.faults, fault, FAULTS)
            content = _ENCODE(self.authority.token(body, self._shop_of(request)))
            response = Response(content, media_type=_JSON)
        except HttpError as error:
            response = Response(error.body, error.status, media_type=_JSON)
        except (ProxyError, Throttled) as other:
            response = other.response()
        self.world.request_log.statuses[response.status_code] += 1
        return response

    # GraphQL

    async def _graphql(self, request: Request) -> Response:
        arrived = time.monotonic()
        raw = await request.body()
        request_log = self.world.request_log
        request_log.endpoints["graphql"] += 1
        if delay := self.world.faults.delay():
            await asyncio.sleep(delay)
        headers = {"X-Request-ID": f"{self.options.seed:08x}-{request_log.endpoints['graphql']:012x}"}
        try:
            merchant, token = self._caller(request)
            version = version_for(request.path_params["version"], self.world.clock())
            headers["X-Shopify-API-Version"] = version
            request_log.arrive({f"{merchant.id}/-"}, arrived, 2**31)
            body = body_of(raw)
            fault = self.world.faults.draw(cursor=has_cursor(body))
            raise_fault(self.world.faults, fault, FAULTS)
            base_url = f"{request.url.scheme}://{request.url.netloc}"
            content = _ENCODE(self._execute(merchant, token, body, base_url, dead_cursor=fault == "cursor"))
            response = corrupt(fault, content, _JSON)
        except HttpError as error:
            response = Response(error.body, error.status, media_type=_JSON)
        except Throttled:
            response = self._throttled(merchant)
        except ProxyError as proxied:
            response = proxied.response()
        request_log.statuses[response.status_code] += 1
        for name, value in headers.items():
            response.headers[name] = value
        return response

    def _caller(self, request: Request) -> tuple[Merchant, AccessToken]:
        named = self._shop_of(request)
        token = self.authority.find(request.headers.get("x-shopify-access-token", ""))
        if named is not None and (status := self._refusing.get(named.id)):
            raise HttpError(status, {"errors": REFUSALS.get(status, "Error")})
        if token is None or (named is not None and token.grant.merchant_id != named.id):
            raise HttpError(401)
        merchant = self.world.merchants[token.grant.merchant_id]
        if status := self._refusing.get(merchant.id):
            raise HttpError(status, {"errors": REFUSALS.get(status, "Error")})
        return merchant, token

    def _throttled(self, merchant: Merchant) -> Response:
        self.world.request_log.counts["rate_limited"] += 1
        cost = {
            "requestedQueryCost": 100,
            "actualQueryCost": None,
            "throttleStatus": self._buckets[merchant.id].status(),
        }
        return Response(_ENCODE({"errors": [throttled().as_json()], "extensions": {"cost": cost}}), media_type=_JSON)

    def _execute(self, merchant: Merchant, token: AccessToken, body: Any, base_url: str, *, dead_cursor: bool) -> Any:
        shop, scopes = self.shops[merchant.id], token.grant.scopes
        try:
            plan = compiled(body.get("query"), body.get("variables"), body.get("operationName"), scopes)
        except Refused as refused:
            return {"errors": refused.errors}
        bucket = self._buckets[merchant.id]
        requested = plan.cost()
        if requested > MOST_COST:
            answer: dict[str, Any] = {"errors": [too_costly(requested, MOST_COST).as_json()]}
            return {**answer, "extensions": {"cost": cost_of(requested, None, bucket)}}
        if not bucket.take(requested):
            self.world.request_log.counts["rate_limited"] += 1
            return {"errors": [throttled().as_json()], "extensions": {"cost": cost_of(requested, None, bucket)}}
        if dead_cursor:
            error = invalid_cursor().as_json([plan.root[0].key])
            return {"errors": [error], "data": None, "extensions": {"cost": cost_of(requested, 0, bucket)}}
        warnings: list[dict[str, Any]] = []
        for field in plan.root:
            if field.args.get("first"):
                field.args["first"] = self.options.page(field.args["first"])
        execution = Execution(plan, self._root(shop, scopes, warnings, base_url, plan))
        data = execution.run()
        actual = min(execution.cost, requested)
        bucket.give_back(requested - actual)
        self._log(merchant, plan, data)
        answer = {"data": data}
        if execution.errors:
            answer["errors"] = execution.errors
        answer["extensions"] = {"cost": cost_of(requested, actual, bucket)}
        if warnings:
            answer["extensions"]["search"] = [{"path": [plan.root[0].key], "warnings": warnings}]
        return answer

    def _root(
        self, shop: Shop, scopes: frozenset[str], warnings: list[dict[str, Any]], base_url: str, plan: Plan
    ) -> dict[str, Any]:
        root = Root(shop, scopes, warnings)
        bulk_query, bulk_mutation = self.bulk.fields(shop, scopes, base_url)
        if not plan.mutation:
            return {**root.query(), **bulk_query}

        def uninstall(_: Mapping[str, Any]) -> dict[str, Any]:
            self.authority.revoke(shop.merchant)
            return {"app": root.installation()["app"], "userErrors": []}

        return {**bulk_mutation, "appUninstall": Call(uninstall)}

    def _log(self, merchant: Merchant, plan: Plan, data: Any) -> None:
        """Remember searches of orders: the evidence that nothing is fetched twice."""
        for field in plan.root:
            if field.name == "orders":
                found = (data or {}).get(field.key) or {}
                self.world.request_log.searches.append(
                    {
                        "at": self.world.clock().timestamp(),
                        "merchant_id": merchant.id,
                        "field": field.args.get("sortKey"),
                        "query": field.args.get("query"),
                        "cursor": bool(field.args.get("after")),
                        "limit": field.args.get("first"),
                        "status": 200,
                        "returned": len(found.get("nodes") or found.get("edges") or ()),
                    }
                )

    # The rest

    async def _result(self, request: Request) -> Response:
        """Answer a bulk operation's result file, to whoever has its address."""
        self.world.request_log.endpoints["bulk_result"] += 1
        content = self.bulk.file(request.path_params["token"], request.query_params.get("Signature", ""))
        if content is None:
            text = b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>ExpiredToken</Code></Error>"
            return Response(text, 403, media_type="application/xml")
        fault = self.world.faults.draw()
        try:
            raise_fault(self.world.faults, fault, FAULTS)
        except HttpError as error:
            return Response(error.body, 503, media_type="application/xml")
        except (ProxyError, Throttled):
            return Response(b"Service Unavailable", 503, media_type="text/plain")
        response = corrupt(fault, content, _JSON)
        response.headers["content-type"] = "application/jsonl"
        return response


def build(world: World, options: SandboxOptions) -> ShopifySandbox:
    """Return Shopify's sandbox over a world; its `routes` are mounted by `flux_sandbox/app.py`."""
    return ShopifySandbox(world, options)
