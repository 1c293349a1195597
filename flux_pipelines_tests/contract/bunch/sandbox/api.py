"""Bunch's side of the wire over the shared world."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from flux_sandbox.bunch.orders import item_json, merchant_json, order_json
from flux_sandbox.bunch.stand import stands
from flux_sandbox.bunch.webhooks import BunchHooks
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flux_sandbox import oauth
from flux_sandbox.oauth import Grant, RefreshToken
from flux_sandbox.options import CLIENT_ID, CLIENT_SECRET, DAY
from flux_sandbox.provider import AuthorisedSandbox
from flux_sandbox.serving import RefusedError, endpoint

if TYPE_CHECKING:
    from flux_sandbox.model import Merchant
    from flux_sandbox.options import SandboxOptions
    from flux_sandbox.order_index import Moment
    from flux_sandbox.world import World

_MOST = 1000


def _refused(status: int, message: str) -> RefusedError:
    """Return Bunch's error."""
    return RefusedError(status, {"message": message})


_FAULTS = {"error500": _refused(503, "Unavailable"), "error429": _refused(429, "Too Many Requests")}


class Authority(oauth.Authority):
    """The authorisation server: scopes are the app's, and a refresh token works once."""

    title, provider = "Bunch", "bunch"
    scopes: Mapping[str, str] = {
        "ORDERS_R": "See your orders",
        "PAYMENTS_R": "See your payments",
        "INVENTORY_R": "See your goods",
        "MERCHANT_R": "See your store",
    }

    def refusal(self, parameter: str, detail: str) -> Exception:
        """Return the error of a request that no page can be shown for."""
        return _refused(400, f"{parameter}: {detail}")

    def code(self) -> str:
        """Return a new authorization code."""
        return secrets.token_hex(16)

    def signed(self, merchant: Merchant, values: dict[str, str]) -> dict[str, str]:
        """Name the merchant in the callback: nothing else does."""
        return {**values, "merchant_id": merchant.id}

    def new_tokens(self, grant: Grant, lifetime: float | None = None) -> dict[str, Any]:
        """Give out tokens, with when they end in seconds since 1970."""
        access, refresh = secrets.token_hex(18), secrets.token_hex(18)
        ends = self.keep(access, grant, self.world.options.token_lifetime if lifetime is None else lifetime)
        last = self.world.clock() + timedelta(seconds=365 * DAY)
        self.refresh[refresh] = RefreshToken(grant, last)
        told = {"access_token_expiration": int(ends.timestamp()), "refresh_token_expiration": int(last.timestamp())}
        return {"access_token": access, "refresh_token": refresh, **told}

    def redeem(self, body: Any) -> dict[str, Any]:
        """Answer `POST /oauth/v2/token`."""
        code = self.live_code(body.get("code", ""))
        if code is None or (body.get("client_id"), body.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            raise _refused(400, "The code or the app is not accepted.")
        code.used = True
        return self.new_tokens(code.grant)

    def renew(self, body: Any) -> dict[str, Any]:
        """Answer `POST /oauth/v2/refresh`."""
        found = self.refresh.get(body.get("refresh_token", ""))
        if found is None or found.used_at or found.grant.revoked or body.get("client_id") != CLIENT_ID:
            raise _refused(400, "The refresh token is not accepted.")
        found.used_at = self.world.clock()
        self.world.request_log.counts["token_refreshes"] += 1
        return self.new_tokens(found.grant)


class BunchSandbox(AuthorisedSandbox[Authority]):
    """Bunch's side of the wire."""

    name = "bunch"

    def __init__(self, world: World, options: SandboxOptions) -> None:
        self._world, self._options = world, options
        self.authority = Authority(world)
        self.webhooks = BunchHooks(world, self.authorised)
        for merchant in () if world.merchants_of(self.name) else stands(options.seed):
            world.take_in(merchant)

    @property
    def routes(self) -> list[Route]:
        """The paths that Bunch serves."""

        def said(answer: Callable[[Any], Any]) -> Callable[[Request], Any]:
            return endpoint(self._world, lambda _, body: answer(body), _FAULTS, damaged=False)

        mine = "/v3/merchants/{merchant}"
        return [
            Route("/oauth/v2/authorize", self._authorize),
            Route("/oauth/v2/token", said(self.authority.redeem), methods=["POST"]),
            Route("/oauth/v2/refresh", said(self.authority.renew), methods=["POST"]),
            Route(mine, self._guarded("MERCHANT_R", lambda _, merchant: merchant_json(merchant))),
            Route(f"{mine}/items", self._guarded("INVENTORY_R", self._items)),
            Route(f"{mine}/orders", self._guarded("ORDERS_R", self._orders)),
            Route(f"{mine}/orders/{{order}}", self._guarded("ORDERS_R", self._order)),
        ]

    def app(self, url: str) -> Mapping[str, Any]:
        """Return the settings and secrets of the app as registered here."""
        where, key = self.webhooks.signing()
        registered = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "webhook_signature_key": key}
        return {"settings": {"base_url": f"{url}/{self.name}", **where}, "secrets": registered}

    def revoke(self, merchant: Merchant) -> int:
        """Revoke everything the merchant granted, who uninstalls the app so."""
        self.webhooks.emit(merchant, "A:DELETE")
        return super().revoke(merchant)

    def _guarded(self, scope: str, answer: Callable[[Request, Merchant], Any]) -> Callable[[Request], Any]:
        """Return an endpoint behind a token of the merchant's with a scope; each token has a limit of its own."""

        def run(request: Request, _: Any) -> Any:
            found = self.authority.access.get(request.headers.get("authorization", "").removeprefix("Bearer "))
            live = found is not None and not found.grant.revoked and found.expires_at > self._world.clock()
            if found is None or not live or found.grant.merchant_id != request.path_params["merchant"]:
                raise _refused(401, "401 Unauthorized")
            if scope not in found.grant.scopes:
                raise _refused(403, f"The app may not {scope}")
            id_ = found.grant.merchant_id
            if not self._world.request_log.arrive([id_], time.monotonic(), self._options.rate_limit):
                raise _refused(429, "Too Many Requests")
            return answer(request, self._world.merchants[id_])

        return endpoint(self._world, run, _FAULTS)

    async def _authorize(self, request: Request) -> Response:
        query = QueryParams([*request.query_params.multi_items(), ("scope", " ".join(self.authority.scopes))])
        try:
            return self.authority.authorize(query)
        except RefusedError as refused:
            return refused.response()

    def _page(self, request: Request, found: Iterable[Any]) -> Any:
        query = request.query_params
        first = int(query.get("offset", 0))
        size = self._options.page(min(int(query.get("limit", 100)), _MOST))
        return {"elements": [*found][first : first + size]}

    def _items(self, request: Request, merchant: Merchant) -> Any:
        return self._page(request, (item_json(item) for item in sorted(merchant.items, key=lambda one: one.id)))

    def _order(self, request: Request, merchant: Merchant) -> Any:
        sale = self._world.sales.get(request.path_params["order"])
        if sale is None or sale.location.merchant_id != merchant.id:
            raise _refused(404, "Not Found")
        return order_json(self._world, sale)

    def _orders(self, request: Request, merchant: Merchant) -> Any:
        asked = dict.fromkeys(("createdTime", "modifiedTime"), (0, 2**62))
        by = "modifiedTime"
        for text in request.query_params.getlist("filter"):
            by = "createdTime" if text.startswith("createdTime") else "modifiedTime"
            first, end = asked[by]
            at = int(text.removeprefix(by).lstrip("<>="))
            asked[by] = (at, end) if ">=" in text else (first, at)
        first, end = asked[by]
        moment: Moment = "created" if by == "createdTime" else "updated"
        sales = [sale for _, sale in self._world.between([merchant.id], moment, first, end - 1)]
        shown = self._page(request, sales)["elements"]
        return {"elements": [order_json(self._world, sale) for sale in shown]}


def build(world: World, options: SandboxOptions) -> BunchSandbox:
    """Return Bunch's sandbox over a world."""
    return BunchSandbox(world, options)
