"""Square as the sandbox plays it: its paths, headers, scopes, limits and error bodies, over the shared world.

Every request takes one path (`_serve`): its arrival is logged, a fault may be drawn, then token, version, scope and limit
are checked in that order, and only then is anything answered.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flux_sandbox.corrupt_response import corrupt
from flux_sandbox.options import CLIENT_ID, CLIENT_SECRET
from flux_sandbox.provider import AuthorisedSandbox, ProxyError, raise_fault
from flux_sandbox.square.catalog_api import CatalogApi
from flux_sandbox.square.documents import KINDS, find_by
from flux_sandbox.square.errors import FAULTS, ApiError, invalid, rate_limited
from flux_sandbox.square.oauth import Authority
from flux_sandbox.square.orders import OrderWriter
from flux_sandbox.square.params import a_body, strings
from flux_sandbox.square.payments_api import PaymentsApi
from flux_sandbox.square.places import location_object
from flux_sandbox.square.reports import Reports
from flux_sandbox.square.search import Searcher, parse
from flux_sandbox.square.staff import Staff
from flux_sandbox.square.webhooks import Webhooks

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams

    from flux_sandbox.documents import Found
    from flux_sandbox.model import Merchant
    from flux_sandbox.options import SandboxOptions
    from flux_sandbox.world import World

DEFAULT_VERSION = "2026-09-16"
MAX_BATCH = 100
_VERSION = re.compile(r"^\d{4}-\d\d-\d\d$")
_JSON = "application/json"


class _Call(NamedTuple):
    """One request, read."""

    request: Request
    body: Any
    token: str  # the Authorization header
    merchant: Merchant | None


class _Endpoint(NamedTuple):
    """What is particular to one path."""

    name: str
    method: str
    path: str
    answer: Callable[[_Call], bytes]
    scope: str | None = None  # None: not behind a bearer token
    needs_body: bool = True


class SquareSandbox(AuthorisedSandbox[Authority]):
    """Square's side of the wire."""

    name = "square"
    document_kinds = KINDS

    def __init__(self, world: World, options: SandboxOptions) -> None:
        self.world = world
        self.options = options
        self.authority = Authority(world)
        self._payments, self._catalog, self._staff = PaymentsApi(world), CatalogApi(world), Staff(world)
        self._reports = Reports(world)
        self.webhooks = Webhooks(world, self.authority, self._payments)
        self._write = OrderWriter()
        self._searcher = Searcher(world, self._write)
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder().decode

    @property
    def routes(self) -> list[Route]:
        """The paths that Square serves."""
        oauth, payments, catalog, staff = self.authority, self._payments, self._catalog, self._staff

        def said(answer: Callable[[Any], Any]) -> Callable[[_Call], bytes]:
            return lambda call: self._encode(answer(call.body))

        def asked(answer: Callable[[Merchant, QueryParams], Any]) -> Callable[[_Call], bytes]:
            return lambda call: self._encode(answer(_merchant(call), call.request.query_params))

        def told(answer: Callable[[Merchant, Any], Any]) -> Callable[[_Call], bytes]:
            return lambda call: self._encode(answer(_merchant(call), call.body))

        def revoke(call: _Call) -> bytes:
            return self._encode(oauth.revoke_token(call.token, call.body))

        def status(call: _Call) -> bytes:
            return self._encode(oauth.status(oauth.check(call.token)))

        def one_payment(call: _Call) -> bytes:
            return self._encode(payments.payment(_merchant(call), call.request.path_params["payment_id"]))

        def meta(_: _Call) -> bytes:
            return self._encode(self._reports.meta())

        counts, cards = "/v2/inventory/counts/batch-retrieve", "/v2/labor/timecards/search"
        endpoints = (
            _Endpoint("token", "POST", "/oauth2/token", said(oauth.token)),
            _Endpoint("revoke", "POST", "/oauth2/revoke", revoke),
            _Endpoint("token_status", "POST", "/oauth2/token/status", status, "", needs_body=False),
            _Endpoint("locations", "GET", "/v2/locations", self._locations, "MERCHANT_PROFILE_READ", False),
            _Endpoint("orders_search", "POST", "/v2/orders/search", self._search, "ORDERS_READ"),
            _Endpoint("orders_batch", "POST", "/v2/orders/batch-retrieve", self._batch, "ORDERS_READ"),
            _Endpoint("payments", "GET", "/v2/payments", asked(payments.payments), "PAYMENTS_READ", False),
            _Endpoint("payment", "GET", "/v2/payments/{payment_id}", one_payment, "PAYMENTS_READ", False),
            _Endpoint("refunds", "GET", "/v2/refunds", asked(payments.refunds), "PAYMENTS_READ", False),
            _Endpoint("catalog_search", "POST", "/v2/catalog/search", told(catalog.search), "ITEMS_READ"),
            _Endpoint("inventory_counts", "POST", counts, told(catalog.counts), "INVENTORY_READ"),
            _Endpoint("timecards_search", "POST", cards, told(staff.search), "TIMECARDS_READ"),
            _Endpoint("reports_meta", "GET", "/reporting/v1/meta", meta, _REPORTS, False),
            _Endpoint("reports_load", "POST", "/reporting/v1/load", told(self._reports.load), _REPORTS),
        )
        routes = [Route(one.path, self._endpoint(one), methods=[one.method]) for one in endpoints]
        return [Route("/oauth2/authorize", self._authorize, methods=["GET"]), *routes]

    # What a test can make happen

    def app(self, url: str) -> Mapping[str, Any]:
        """Return the settings and secrets of the app as registered here."""
        where, key = self.webhooks.signing()
        secrets = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "webhook_signature_key": key}
        return {"settings": {"base_url": url, **where}, "secrets": secrets}

    def find_by(self, order: Mapping[str, Any]) -> Found:
        """Return what an order that is not made up is found by."""
        return find_by(order)

    # The one path of a request

    def _endpoint(self, endpoint: _Endpoint) -> Callable[[Request], Any]:
        async def serve(request: Request) -> Response:
            return await self._serve(endpoint, request, time.monotonic())

        return serve

    async def _serve(self, endpoint: _Endpoint, request: Request, arrived: float) -> Response:
        raw = await request.body()
        request_log, faults = self.world.request_log, self.world.faults
        request_log.endpoints[endpoint.name] += 1
        body: Any = None
        problem: ApiError | None = None
        if raw:
            try:
                body = self._decode(raw)
            except msgspec.DecodeError:
                problem = invalid("EXPECTED_JSON_BODY", "The request body is not a JSON object.")
        elif endpoint.needs_body:
            problem = invalid("EXPECTED_JSON_BODY", "The request body is not a JSON object.")
        authorization = request.headers.get("authorization", "")
        holder = self.authority.find(authorization)
        merchant = self.world.merchants[holder.grant.merchant_id] if holder else None
        within = True
        if endpoint.scope is not None and merchant is not None:
            within = request_log.arrive(self._keys(merchant, request, body), arrived, self.options.rate_limit)
        fields = body if isinstance(body, dict) else {}
        one_time = fields.get("grant_type") == "authorization_code"
        has_cursor = bool(fields.get("cursor") or request.query_params.get("cursor"))
        fault = "" if one_time else faults.draw(cursor=has_cursor, answer=endpoint.scope is not None)
        if delay := faults.delay():
            await asyncio.sleep(delay)
        version = request.headers.get("square-version", DEFAULT_VERSION)
        try:
            raise_fault(faults, fault, FAULTS)
            if endpoint.scope is not None:
                self.authority.check(authorization, endpoint.scope)
            _check_version(version)
            if not within:
                request_log.counts["rate_limited"] += 1
                raise rate_limited()
            if problem is not None:
                raise problem
            content = endpoint.answer(_Call(request, body, authorization, merchant))
        except ApiError as error:
            response = Response(error.body, error.status, media_type=_JSON)
            self._log_search(endpoint, merchant, fields, error.status, 0)
        except ProxyError as proxied:
            response = proxied.response()
            self._log_search(endpoint, merchant, fields, proxied.status, 0)
        else:
            response = corrupt(fault, content)
        request_log.statuses[response.status_code] += 1
        response.headers["square-version"] = version if _VERSION.match(version) else DEFAULT_VERSION
        return response

    def _keys(self, merchant: Merchant, request: Request, body: Any) -> set[str]:
        """Return what a request counts against: the locations it names, or else the merchant's account."""
        fields = body if isinstance(body, dict) else {}
        query = fields.get("query")
        conditions = query.get("filter") if isinstance(query, dict) else None
        named = [fields.get("location_id"), request.query_params.get("location_id")]
        for where in (fields, conditions if isinstance(conditions, dict) else {}):
            ids = where.get("location_ids")
            named += ids if isinstance(ids, list) else []
        known = {id_ for id_ in named if isinstance(id_, str) and id_ in self.world.locations}
        return known or {f"{merchant.id}/-"}

    def _log_search(
        self, endpoint: _Endpoint, merchant: Merchant | None, body: Mapping[str, Any], status: int, returned: int
    ) -> None:
        if endpoint.name != "orders_search":
            return
        entry: dict[str, Any] = {
            "at": self.world.clock().timestamp(),
            "merchant_id": merchant.id if merchant else None,
            "location_ids": body.get("location_ids"),
            "cursor": bool(body.get("cursor")),
            "limit": body.get("limit"),
            "status": status,
            "returned": returned,
        }
        try:
            conditions = body["query"]["filter"]
            for field, span in conditions.get("date_time_filter", {}).items():
                entry.update(field=field, start_at=span.get("start_at"), end_at=span.get("end_at"))
            entry["states"] = conditions.get("state_filter", {}).get("states")
        except (KeyError, TypeError, AttributeError):
            entry["field"] = None  # a query too odd to tell its window; it is counted all the same
        self.world.request_log.searches.append(entry)

    # The endpoints

    async def _authorize(self, request: Request) -> Response:
        self.world.request_log.endpoints["authorize"] += 1
        try:
            return self.authority.authorize(request.query_params)
        except ApiError as error:
            return Response(error.body, error.status, media_type=_JSON)

    def _locations(self, call: _Call) -> bytes:
        merchant = _merchant(call)
        shown = sorted(merchant.locations, key=lambda location: location.name)
        return self._encode({"locations": [location_object(merchant, location) for location in shown]})

    def _search(self, call: _Call) -> bytes:
        content, returned = self._searcher.answer(_merchant(call), parse(call.body))
        self._log_search(_SEARCH, call.merchant, call.body, 200, returned)
        return content

    def _batch(self, call: _Call) -> bytes:
        merchant = _merchant(call)
        ids = strings(a_body(call.body, "order_ids").get("order_ids"), "order_ids", MAX_BATCH)
        if not ids:
            raise invalid("ARRAY_EMPTY", "At least one order ID is required.", "order_ids")
        sales = (self.world.sales.get(id_) for id_ in dict.fromkeys(ids))
        found = [self._write(sale) for sale in sales if sale and sale.location.merchant_id == merchant.id]
        return b'{"orders":[' + b",".join(found) + b"]}" if found else b"{}"


_REPORTS = "REPORTING_READ"
_SEARCH = _Endpoint("orders_search", "POST", "", lambda _: b"")


def _merchant(call: _Call) -> Merchant:
    assert call.merchant is not None  # noqa: S101 (behind a token)
    return call.merchant


def _check_version(text: str) -> None:
    try:
        if not _VERSION.match(text):
            raise ValueError
        date.fromisoformat(text)
    except ValueError:
        raise invalid(
            "INVALID_SQUARE_VERSION_FORMAT", "The Square-Version header must have the format YYYY-MM-DD."
        ) from None


def build(world: World, options: SandboxOptions) -> SquareSandbox:
    """Return Square's sandbox over a world; its `routes` are mounted by `flux_sandbox/app.py`."""
    return SquareSandbox(world, options)
