"""The sandbox's own endpoints, under /sandbox/: its merchants, the truth, what was asked, and the strings a test pulls.

None of these is a provider's, none is ever hit by a fault, and none needs a token. Bodies and answers are JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import Any, Protocol, cast

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from flux_pipelines.domain.errors import ConfigurationError, FluxError
from flux_pipelines.sandbox.model import Merchant, Sale
from flux_pipelines.sandbox.options import CLIENT_ID, CLIENT_SECRET
from flux_pipelines.sandbox.pricing import price
from flux_pipelines.sandbox.truth import total_of, truth
from flux_pipelines.sandbox.world import Moment, World

_ORDERS_SHOWN = 100
Body = dict[str, Any]


class ProviderSandbox(Protocol):
    """One provider's side of the wire, as its `build(world, options)` returns it."""

    @property
    def name(self) -> str:
        """The provider's name."""

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """The provider's own paths."""

    def authorised(self) -> set[str]:
        """Return the ids of the merchants that have a live authorisation."""

    def issue(self, merchant: Merchant, scopes: Iterable[str], lifetime: float | None) -> Mapping[str, Any]:
        """Give out tokens without anybody authorising."""

    def revoke(self, merchant: Merchant) -> int:
        """Revoke everything the merchant granted."""

    def remove_scopes(self, merchant: Merchant, scopes: Iterable[str]) -> None:
        """Take permissions away from the merchant's tokens."""

    def expire(self, merchant: Merchant | None) -> int:
        """Let the access tokens of one merchant, or of all, expire now."""


def _json(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def _summary(sale: Sale) -> Body:
    return {
        "order_id": sale.id,
        "reference_id": sale.reference,
        "location_id": sale.location.id,
        "state": sale.state,
        "created_ms": sale.created,
        "updated_ms": sale.updated,
        "closed_ms": sale.closed,
        "total": price(sale).total,
        "returns": bool(sale.returns),
    }


class Control:
    """Answers /sandbox/* for a world and the providers that play in it."""

    def __init__(self, world: World, providers: Sequence[ProviderSandbox]) -> None:
        self.world = world
        self.providers = providers

    @property
    def routes(self) -> list[Route]:
        """The paths under /sandbox, and /healthz."""
        reads: dict[str, Callable[[Request], Any]] = {
            "app": lambda _: {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET},
            "merchants": self._merchants,
            "stats": self._stats,
            "orders": self._orders,
        }
        actions: dict[str, Callable[[Body], Any]] = {
            "tokens": self._issue,
            "tokens/revoke": self._revoke,
            "tokens/expire": self._expire,
            "tokens/scopes": self._remove_scopes,
            "orders/sell": lambda b: _summary(self.world.sell(_text(b, "location_id"))),
            "orders/late": lambda b: _summary(self.world.sell_late(_number(b, "hours", 24.0), _text(b, "location_id"))),
            "orders/edit": lambda b: _summary(
                self.world.edit(_needed(b, "order_id"), add_units=int(_number(b, "add_units", 0)))
            ),
            "orders/refund": lambda b: _summary(self.world.refund(_needed(b, "order_id"))),
            "orders/complete": lambda b: _summary(self.world.complete(_text(b, "order_id"))),
            "orders/malformed": lambda b: _summary(
                self.world.malform(_text(b, "kind") or "types", _text(b, "location_id"))
            ),
            "locations/timezone": self._timezone,
            "stats/reset": self._reset,
            "faults": self._change_faults,
        }
        routes = [Route("/healthz", self._health), Route("/sandbox/truth", self._truth)]
        routes += [Route(f"/sandbox/{name}", _reader(answer), methods=["GET"]) for name, answer in reads.items()]
        routes += [Route(f"/sandbox/{name}", _actor(act), methods=["POST"]) for name, act in actions.items()]
        return routes

    async def _health(self, _: Request) -> Response:
        return _json({"status": "ok"})

    def _merchants(self, _: Request) -> Any:
        end_day = self.world.end_day.isoformat() if self.world.end_day else None
        return {"merchants": self.world.describe(), "authorised": sorted(self._authorised()), "end_day": end_day}

    def _authorised(self) -> set[str]:
        return set().union(*(provider.authorised() for provider in self.providers))

    def _stats(self, request: Request) -> Any:
        found = self.world.traffic.snapshot(arrivals=request.query_params.get("arrivals") == "1")
        return {**found, "faults": dict(self.world.faults.injected)}

    def _orders(self, request: Request) -> Any:
        """List orders, newest first: ?merchant= or ?location_id=, ?state=, ?limit=."""
        query = request.query_params
        merchants = [self.world.merchant(query["merchant"])] if "merchant" in query else self.world.merchants.values()
        ids = [location.id for merchant in merchants for location in merchant.locations]
        if "location_id" in query:
            ids = [self.world.location(query["location_id"]).id]
        found = []
        for _, sale in self.world.between(ids, "created", -(2**62), 2**62, descending=True):
            if query.get("state") in (None, sale.state):
                found.append(_summary(sale))
            if len(found) >= int(query.get("limit", _ORDERS_SHOWN)):
                break
        return {"orders": found}

    async def _truth(self, request: Request) -> Response:
        # In a thread: adding up a year takes a second, in which requests must still be seen to arrive.
        return await run_in_threadpool(_answer, self._tell, request)

    def _tell(self, request: Request) -> Any:
        """Tell the truth: ?merchant=, ?location_id= (repeatable), ?from=, ?to=, ?cutoff_hour=, ?basis=, ?totals=1."""
        query = request.query_params
        basis = query.get("basis", "created")
        if basis not in ("created", "updated", "closed"):
            raise ConfigurationError(f"basis must be created, updated or closed, not {basis!r}")
        try:
            first = date.fromisoformat(query["from"]) if "from" in query else None
            last = date.fromisoformat(query["to"]) if "to" in query else None
            cutoff = int(query.get("cutoff_hour", "0"))
        except ValueError as error:
            raise ConfigurationError(f"not a date or hour: {error}") from error
        days = truth(
            self.world,
            merchant=query.get("merchant"),
            location_ids=query.getlist("location_id") or None,
            first=first,
            last=last,
            cutoff_hour=cutoff,
            basis=cast(Moment, basis),
        )
        answer: Body = {"totals": total_of(days)}
        if query.get("totals") != "1":
            answer["days"] = [day.as_json() for day in days]
        return answer

    def _of(self, body: Body) -> list[ProviderSandbox]:
        wanted = _text(body, "provider")
        return [provider for provider in self.providers if wanted in (None, provider.name)]

    def _issue(self, body: Body) -> Any:
        merchant = self.world.merchant(_needed(body, "merchant"))
        lifetime = _number(body, "lifetime", 0.0) or None
        return self._of(body)[0].issue(merchant, body.get("scopes") or (), lifetime)

    def _revoke(self, body: Body) -> Any:
        merchant = self.world.merchant(_needed(body, "merchant"))
        return {"revoked": sum(provider.revoke(merchant) for provider in self._of(body))}

    def _expire(self, body: Body) -> Any:
        name = _text(body, "merchant")
        merchant = self.world.merchant(name) if name else None
        return {"expired": sum(provider.expire(merchant) for provider in self._of(body))}

    def _remove_scopes(self, body: Body) -> Any:
        merchant = self.world.merchant(_needed(body, "merchant"))
        scopes = body.get("remove")
        if not isinstance(scopes, list) or not scopes:
            raise ConfigurationError("`remove` must list the scopes to take away")
        for provider in self._of(body):
            provider.remove_scopes(merchant, scopes)
        return {"removed": scopes}

    def _timezone(self, body: Body) -> Any:
        location = self.world.location(_needed(body, "location_id"))
        location.reported_timezone = _needed(body, "timezone")
        return {"location_id": location.id, "timezone": location.reported_timezone}

    def _reset(self, _: Body) -> Any:
        self.world.traffic.reset()
        self.world.faults.injected.clear()
        return {"reset": True}

    def _change_faults(self, body: Body) -> Any:
        self.world.faults.change(_text(body, "faults") or "")
        return {"faults": self.world.faults.rates}


def _answer(act: Callable[[Any], Any], argument: Any) -> Response:
    try:
        return _json(act(argument))
    except FluxError as error:
        return _json({"error": str(error)}, 400)


def _reader(answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
    async def read(request: Request) -> Response:
        return _answer(answer, request)

    return read


def _actor(act: Callable[[Body], Any]) -> Callable[[Request], Any]:
    async def run(request: Request) -> Response:
        raw = await request.body()
        try:
            body = msgspec.json.decode(raw or b"{}", type=dict[str, Any])
        except (msgspec.DecodeError, msgspec.ValidationError):
            return _json({"error": "The body must be a JSON object."}, 400)
        return _answer(act, body)

    return run


def _text(body: Body, name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"`{name}` must be text")
    return value


def _needed(body: Body, name: str) -> str:
    value = _text(body, name)
    if not value:
        raise ConfigurationError(f"`{name}` is missing")
    return value


def _number(body: Body, name: str, default: float) -> float:
    value = body.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ConfigurationError(f"`{name}` must be a number")
    return float(value)
