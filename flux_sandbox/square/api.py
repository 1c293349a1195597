"""Square as the sandbox plays it: its paths, headers, scopes, limits and error bodies, over the shared world.

Every request takes one path (`_serve`): its arrival is logged, a fault may be drawn, then token, version, scope and limit
are checked in that order, and only then is anything answered.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from flux_sandbox.corrupt_response import damage
from flux_sandbox.options import CLIENT_ID, CLIENT_SECRET, WEBHOOK_SIGNATURE_KEY
from flux_sandbox.square.catalog_api import Shelf
from flux_sandbox.square.consent import answered, page
from flux_sandbox.square.cursors import invalid_cursor
from flux_sandbox.square.documents import KINDS, find_by
from flux_sandbox.square.errors import (
    PROXY_ANSWERS,
    SERVER_ERRORS,
    ApiError,
    ProxyError,
    invalid,
    rate_limited,
)
from flux_sandbox.square.oauth import Authority
from flux_sandbox.square.orders import OrderWriter
from flux_sandbox.square.payments_api import Till
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


class SquareSandbox:
    """Square's side of the wire."""

    name = "square"
    document_kinds = KINDS

    def __init__(self, world: World, options: SandboxOptions) -> None:
        self.world = world
        self.options = options
        self.authority = Authority(world)
        self._till, self._shelf, self._staff = Till(world), Shelf(world), Staff(world)
        self._reports = Reports(world)
        self.webhooks = Webhooks(world, self.authority, self._till)
        self._write = OrderWriter()
        self._searcher = Searcher(world, self._write)
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder().decode

    @property
    def routes(self) -> list[Route]:
        """The paths that Square serves."""
        endpoints: tuple[_Endpoint, ...] = (
            _Endpoint("token", "POST", "/oauth2/token", lambda c: self._encode(self.authority.token(c.body))),
            _Endpoint("revoke", "POST", "/oauth2/revoke", self._revoke),
            _Endpoint("token_status", "POST", "/oauth2/token/status", self._token_status, "", needs_body=False),
            _Endpoint("locations", "GET", "/v2/locations", self._locations, "MERCHANT_PROFILE_READ", False),
            _Endpoint("orders_search", "POST", "/v2/orders/search", self._search, "ORDERS_READ"),
            _Endpoint("orders_batch", "POST", "/v2/orders/batch-retrieve", self._batch, "ORDERS_READ"),
            _Endpoint("order", "GET", "/v2/orders/{order_id}", self._order, "ORDERS_READ", False),
        )
        reports = self._reports
        endpoints += (
            _Endpoint(
                "reports_meta", "GET", "/reporting/v1/meta", lambda _: self._encode(reports.meta()), _REPORTS, False
            ),
            _Endpoint(
                "reports_load",
                "POST",
                "/reporting/v1/load",
                lambda c: self._encode(reports.load(_merchant(c), c.body)),
                _REPORTS,
            ),
        )
        endpoints += self._streams() + self._managed()
        routes = [Route("/oauth2/authorize", self._authorize, methods=["GET"])]
        for endpoint in endpoints:
            routes.append(Route(endpoint.path, self._endpoint(endpoint), methods=[endpoint.method]))
        every = ["GET", "POST", "PUT", "DELETE", "PATCH"]
        routes += [
            Route(f"/{root}/{{rest:path}}", self._unknown, methods=every) for root in ("v2", "oauth2", "reporting")
        ]
        return routes

    def _streams(self) -> tuple[_Endpoint, ...]:
        """The paths of what is not an order."""

        def asked(answer: Callable[[Merchant, QueryParams], Any]) -> Callable[[_Call], bytes]:
            return lambda call: self._encode(answer(_merchant(call), call.request.query_params))

        def told(answer: Callable[[Merchant, Any], Any]) -> Callable[[_Call], bytes]:
            return lambda call: self._encode(answer(_merchant(call), call.body))

        till, shelf, staff = self._till, self._shelf, self._staff

        def one_payment(call: _Call) -> bytes:
            return self._encode(till.payment(_merchant(call), call.request.path_params["payment_id"]))

        counts, cards = "/v2/inventory/counts/batch-retrieve", "/v2/labor/timecards/search"
        return (
            _Endpoint("payments", "GET", "/v2/payments", asked(till.payments), "PAYMENTS_READ", False),
            _Endpoint("payment", "GET", "/v2/payments/{payment_id}", one_payment, "PAYMENTS_READ", False),
            _Endpoint("refunds", "GET", "/v2/refunds", asked(till.refunds), "PAYMENTS_READ", False),
            _Endpoint("catalog_search", "POST", "/v2/catalog/search", told(shelf.search), "ITEMS_READ"),
            _Endpoint("inventory_counts", "POST", counts, told(shelf.counts), "INVENTORY_READ"),
            _Endpoint("timecards_search", "POST", cards, told(staff.search), "TIMECARDS_READ"),
        )

    def _managed(self) -> tuple[_Endpoint, ...]:
        """The paths of webhook subscriptions, which are the app's and no merchant's."""
        hooks = self.webhooks
        one = "/v2/webhooks/subscriptions/{subscription_id}"
        listed = (
            ("event_types", "GET", "/v2/webhooks/event-types", hooks.event_types),
            ("subscriptions", "GET", "/v2/webhooks/subscriptions", hooks.listed),
            ("subscribe", "POST", "/v2/webhooks/subscriptions", hooks.create),
            ("subscription", "GET", one, hooks.retrieve),
            ("subscription_update", "PUT", one, hooks.update),
            ("subscription_delete", "DELETE", one, hooks.delete),
            ("signature_key", "POST", f"{one}/signature-key", hooks.change_key),
            ("subscription_test", "POST", f"{one}/test", hooks.test),
        )

        def for_the_app(act: Callable[[Mapping[str, str], Any], Any]) -> Callable[[_Call], bytes]:
            def run(call: _Call) -> bytes:
                hooks.check(call.token)
                return self._encode(act(call.request.path_params, call.body))

            return run

        return tuple(
            _Endpoint(name, method, path, for_the_app(act), needs_body=False) for name, method, path, act in listed
        )

    # What a test can make happen

    def app(self, url: str) -> Mapping[str, Any]:
        """Return the settings and secrets of the app as registered here."""
        hook = next(iter(self.webhooks.subscriptions.values()), None)
        where = {"notification_url": hook.url} if hook else {}
        return {
            "settings": {"base_url": url, **where},
            "secrets": {
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
                "webhook_signature_key": hook.key if hook else WEBHOOK_SIGNATURE_KEY,
            },
        }

    def authorised(self) -> set[str]:
        """Return the ids of the merchants that have a live authorisation."""
        return self.authority.authorised()

    def issue(self, merchant: Merchant, scopes: Iterable[str], lifetime: float | None) -> Mapping[str, Any]:
        """Give out tokens without anybody authorising."""
        return self.authority.issue(merchant, scopes, lifetime)

    def revoke(self, merchant: Merchant) -> int:
        """Revoke everything the merchant granted."""
        return self.authority.revoke_merchant(merchant.id)

    def remove_scopes(self, merchant: Merchant, scopes: Iterable[str]) -> None:
        """Take permissions away."""
        self.authority.remove_scopes(merchant.id, scopes)

    def expire(self, merchant: Merchant | None) -> int:
        """Let access tokens expire now."""
        return self.authority.expire(merchant.id if merchant else None)

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
        traffic, faults = self.world.traffic, self.world.faults
        traffic.endpoints[endpoint.name] += 1
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
            within = traffic.arrive(self._keys(merchant, request, body), arrived, self.options.rate_limit)
        fields = body if isinstance(body, dict) else {}
        one_time = fields.get("grant_type") == "authorization_code"
        has_cursor = bool(fields.get("cursor") or request.query_params.get("cursor"))
        fault = "" if one_time else faults.draw(cursor=has_cursor, answer=endpoint.scope is not None)
        if delay := faults.delay():
            await asyncio.sleep(delay)
        version = request.headers.get("square-version", DEFAULT_VERSION)
        try:
            self._fail_before(fault)
            if endpoint.scope is not None:
                self.authority.check(authorization, endpoint.scope)
            _check_version(version)
            if not within:
                traffic.counts["rate_limited"] += 1
                raise rate_limited()
            if problem is not None:
                raise problem
            content = endpoint.answer(_Call(request, body, authorization, merchant))
        except ApiError as error:
            response = Response(error.body, error.status, media_type=_JSON)
            self._log_search(endpoint, merchant, fields, error.status, 0)
        except ProxyError as proxied:
            response = Response(proxied.body, proxied.status, media_type=proxied.media_type)
            self._log_search(endpoint, merchant, fields, proxied.status, 0)
        else:
            response = damage(fault, content)
        traffic.statuses[response.status_code] += 1
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

    def _fail_before(self, fault: str) -> None:
        random = self.world.faults.random
        if fault == "error500":
            raise ApiError(*random.choice(SERVER_ERRORS))
        if fault == "error429":
            raise rate_limited()
        if fault == "html":
            raise ProxyError(*random.choice(PROXY_ANSWERS))
        if fault == "cursor":
            raise invalid_cursor()

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
        self.world.traffic.searches.append(entry)

    # The endpoints

    async def _authorize(self, request: Request) -> Response:
        self.world.traffic.endpoints["authorize"] += 1
        query = request.query_params
        try:
            if answered(query):
                return RedirectResponse(self.authority.authorize(query), 302)
            merchants = self.world.merchants_of(self.name)
            return page(query, merchants, self.authority.choose(""), self.authorised())
        except ApiError as error:
            return Response(error.body, error.status, media_type=_JSON)

    async def _unknown(self, request: Request) -> Response:
        path, method = request.url.path, request.method
        detail = f"API endpoint for URL path `{path}` and HTTP method `{method}` is not found."
        error = ApiError(404, "NOT_FOUND", detail)
        self.world.traffic.statuses[404] += 1
        return Response(error.body, 404, media_type=_JSON)

    def _revoke(self, call: _Call) -> bytes:
        return self._encode(self.authority.revoke(call.token, call.body))

    def _token_status(self, call: _Call) -> bytes:
        return self._encode(self.authority.status(self.authority.check(call.token)))

    def _locations(self, call: _Call) -> bytes:
        merchant = _merchant(call)
        shown = sorted(merchant.locations, key=lambda location: location.name)
        return self._encode({"locations": [location_object(merchant, location) for location in shown]})

    def _search(self, call: _Call) -> bytes:
        content, returned = self._searcher.answer(_merchant(call), parse(call.body))
        self._log_search(_SEARCH, call.merchant, call.body, 200, returned)
        return content

    def _batch(self, call: _Call) -> bytes:
        if not isinstance(call.body, dict):
            raise invalid("EXPECTED_JSON_BODY", "The request body is not a JSON object.")
        ids = call.body.get("order_ids")
        if ids is None:
            raise invalid("MISSING_REQUIRED_PARAMETER", "Missing required parameter.", "order_ids")
        if not isinstance(ids, list) or not all(isinstance(id_, str) for id_ in ids):
            raise invalid("EXPECTED_ARRAY", "Expected an array of strings.", "order_ids")
        if not ids:
            raise invalid("ARRAY_EMPTY", "At least one order ID is required.", "order_ids")
        if len(ids) > MAX_BATCH:
            detail = f"Array must contain no more than {MAX_BATCH} elements."
            raise invalid("ARRAY_LENGTH_TOO_LONG", detail, "order_ids")
        where = call.body.get("location_id")
        found = []
        for id_ in dict.fromkeys(ids):
            sale = self.world.sales.get(id_)
            if sale is not None and sale.location.merchant_id == _own(call) and where in (None, sale.location.id):
                found.append(self._write(sale))
        return b'{"orders":[' + b",".join(found) + b"]}" if found else b"{}"

    def _order(self, call: _Call) -> bytes:
        id_ = call.request.path_params["order_id"]
        sale = self.world.sales.get(id_)
        if sale is None or sale.location.merchant_id != _own(call):
            raise ApiError(404, "NOT_FOUND", f"Order not found for id {id_}.", "order_id")
        return b'{"order":' + self._write(sale) + b"}"


_REPORTS = "REPORTING_READ"
_SEARCH = _Endpoint("orders_search", "POST", "", lambda _: b"")


def _merchant(call: _Call) -> Merchant:
    assert call.merchant is not None  # noqa: S101 (behind a token)
    return call.merchant


def _own(call: _Call) -> str | None:
    return call.merchant.id if call.merchant else None


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
