"""Toast as the sandbox plays it: its paths, headers, scopes, limits and error bodies, over the shared world.

Every request takes one path (`_serve`): its arrival is logged, a fault may be drawn, then token, scope, restaurant and limit
are checked in that order, and only then is anything answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flux_sandbox.answers import Body, actor, needed
from flux_sandbox.corrupt_response import corrupt
from flux_sandbox.provider import AuthorisedSandbox, ProxyError, raise_fault
from flux_sandbox.toast.auth import Authority
from flux_sandbox.toast.calls import Answer, Call, Endpoint
from flux_sandbox.toast.documents import KINDS, Record, found_by
from flux_sandbox.toast.errors import FAULTS, JSON, ApiError, invalid, rate_limited
from flux_sandbox.toast.ids import restaurant_guid
from flux_sandbox.toast.limits import Limiter
from flux_sandbox.toast.orders import OrderWriter, View
from flux_sandbox.toast.paths import Paths
from flux_sandbox.toast.webhooks import Webhooks

if TYPE_CHECKING:
    from flux_sandbox.documents import Found
    from flux_sandbox.model import Merchant
    from flux_sandbox.options import SandboxOptions
    from flux_sandbox.world import World

_UNLIMITED = 2**62  # the world's log counts arrivals; the limits are Toast's own


class ToastSandbox(AuthorisedSandbox[Authority]):
    """Toast's side of the wire."""

    name = "toast"
    document_kinds = KINDS

    def __init__(self, world: World, options: SandboxOptions) -> None:
        self.world = world
        self.options = options
        self.authority = Authority(world)
        self.write = OrderWriter(world)
        self.webhooks = Webhooks(world, self.authority, self.write)
        self.paths = Paths(world, self.authority, self.write)
        self._limiter = Limiter(options.rate_limit)

    @property
    def routes(self) -> list[Route]:
        """The paths that Toast serves, and the sandbox's own about it."""
        login = Route("/authentication/v1/authentication/login", self._login, methods=["POST"])
        routes = [
            login,
            *(Route(one.path, self._endpoint(one), methods=[one.method]) for one in self.paths.endpoints()),
        ]
        own: dict[str, Callable[[Body], Any]] = {
            "menus/publish": self._publish_menus,
            "config/publish": self._publish_config,
            "restaurants/disconnect": self._disconnect,
            "restaurants/connect": self._connect,
        }
        return [*routes, *(Route(f"/sandbox/toast/{path}", actor(act), methods=["POST"]) for path, act in own.items())]

    # What a test can make happen

    def app(self, url: str) -> Mapping[str, Any]:
        """Return the settings and secrets of the webhook subscription as it is here."""
        where, key = self.webhooks.signing()
        settings = {"base_url": f"{url}/{self.name}", **where}
        return {"settings": settings, "secrets": {"webhook_signature_key": key}}

    def credentials(self, merchant: Merchant) -> Mapping[str, Any]:
        """Return what a connection to a merchant needs: there is no page to consent on.

        Whoever connects again grants everything anew.
        """
        client = self.authority.renewed(merchant)
        return {"secrets": {"client_id": client.id, "client_secret": client.secret}, "settings": {}}

    def revoke(self, merchant: Merchant) -> int:
        """Delete a merchant's credentials, and say that its restaurants are gone."""
        ended = super().revoke(merchant)
        for location in merchant.locations:
            self.webhooks.send(merchant, self.webhooks.partner("partner_removed", location))
        return ended

    def find_by(self, order: Record) -> Found:
        """Return what an order that was taken in is found by."""
        return found_by(order)

    def _publish_menus(self, body: Body) -> Any:
        merchant = self.world.merchant(needed(body, "merchant"))
        at = self.paths.menus.publish(merchant, new_guids=body.get("new_guids") is True)
        for event in self.webhooks.menus(merchant):
            self.webhooks.send(merchant, event)
        return {"published_ms": at}

    def _publish_config(self, body: Body) -> Any:
        return {"times": self.paths.configuration.publish(self.world.merchant(needed(body, "merchant")))}

    def _connected(self, body: Body, event_type: str) -> Any:
        location = self.world.location(needed(body, "location_id"))
        merchant = self.world.merchants[location.merchant_id]
        gone = self.authority.client_of(merchant).disconnected
        (gone.add if event_type == "partner_removed" else gone.discard)(restaurant_guid(location))
        self.webhooks.send(merchant, self.webhooks.partner(event_type, location))
        return {"restaurants": len(self.authority.restaurants(self.authority.client_of(merchant)))}

    def _disconnect(self, body: Body) -> Any:
        return self._connected(body, "partner_removed")

    def _connect(self, body: Body) -> Any:
        return self._connected(body, "partner_added")

    # The one path of a request

    def _endpoint(self, endpoint: Endpoint) -> Callable[[Request], Any]:
        async def serve(request: Request) -> Response:
            return await self._serve(endpoint, request, time.monotonic())

        return serve

    async def _serve(self, endpoint: Endpoint, request: Request, arrived: float) -> Response:
        raw = await request.body()
        self.world.request_log.endpoints[endpoint.name] += 1
        authorization = request.headers.get("authorization", "")
        named = request.headers.get("toast-restaurant-external-id", "")
        within, headers = self._arrive(endpoint, authorization, named, arrived)
        fault = self.world.faults.draw(cursor="pageToken" in request.query_params)
        if delay := self.world.faults.delay():
            await asyncio.sleep(delay)
        try:
            raise_fault(self.world.faults, fault, FAULTS)
            call = self._allowed(endpoint, request, raw, authorization, named)
            if not within:
                self.world.request_log.counts["rate_limited"] += 1
                raise rate_limited(headers)
            found = endpoint.answer(call)
            content = found if isinstance(found, Answer) else Answer(msgspec.json.encode(found))
        except (ApiError, ProxyError) as error:
            response = _refusal(error)
            self._log_search(endpoint, request, named, response.status_code)
        else:
            response = corrupt(fault, content.body) if content.status == 200 else Response(status_code=content.status)
            response.headers.update(content.headers)
        response.headers.update({name: value for name, value in headers.items() if name not in response.headers})
        self.world.request_log.statuses[response.status_code] += 1
        return response

    def _arrive(
        self, endpoint: Endpoint, authorization: str, named: str, arrived: float
    ) -> tuple[bool, dict[str, str]]:
        """Count a request against its client and restaurant; without a known client, against its address."""
        token = self.authority.find(authorization)
        if token is None:
            return self._limiter.arrive("address", endpoint.name, time.time())
        client = self.authority.clients[token.client_id]
        known = next((one.id for one in client.merchant.locations if restaurant_guid(one) == named), None)
        self.world.request_log.arrive({known or f"{client.merchant.id}/-"}, arrived, _UNLIMITED)
        return self._limiter.arrive(f"{client.id}|{known}", endpoint.name, time.time())

    def _allowed(self, endpoint: Endpoint, request: Request, raw: bytes, authorization: str, named: str) -> Call:
        client = self.authority.check(authorization, endpoint.scope)
        token = self.authority.find(authorization)
        assert token is not None  # noqa: S101 (just checked)
        restaurant = self.authority.restaurant(client, named) if endpoint.restaurant else None
        view = View(
            people=self.authority.may(token, "guest.pi:read"),
            addresses=self.authority.may(token, "delivery_info.address:read"),
        )
        return Call(request, _body(raw) if endpoint.method != "GET" else None, client, restaurant, view)

    def _log_search(self, endpoint: Endpoint, request: Request, named: str, status: int) -> None:
        if endpoint.name == "orders_bulk":
            self.paths.log_search(named, request.query_params, status, 0)

    async def _login(self, request: Request) -> Response:
        raw = await request.body()
        self.world.request_log.endpoints["login"] += 1
        fault = self.world.faults.draw()
        if delay := self.world.faults.delay():
            await asyncio.sleep(delay)
        try:
            raise_fault(self.world.faults, fault, FAULTS)
            response = corrupt(fault, msgspec.json.encode(self.authority.login(_body(raw))))
        except (ApiError, ProxyError) as error:
            response = _refusal(error)
        self.world.request_log.statuses[response.status_code] += 1
        return response


def _body(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        raise invalid("The request body must be a JSON object") from None


def _refusal(error: ApiError | ProxyError) -> Response:
    if isinstance(error, ProxyError):
        return error.response()
    return Response(error.body, error.status, headers=error.headers, media_type=JSON)


def build(world: World, options: SandboxOptions) -> ToastSandbox:
    """Return Toast's sandbox over a world; its `routes` are mounted by `flux_sandbox/app.py`."""
    return ToastSandbox(world, options)
