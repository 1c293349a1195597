"""The sandbox's own endpoints, under /sandbox/: its merchants, the truth, what was asked, and the strings a test pulls.

None of these is a provider's, none is ever hit by a fault, and none needs a token. Bodies and answers are JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flux_pipelines.domain.errors import ConfigurationError
from flux_sandbox.answers import (
    Body,
    actor,
    indexes,
    json_answer,
    needed,
    number,
    reader,
    slow_reader,
    text,
    truth_asked,
)
from flux_sandbox.control_upkeep import UpkeepControl
from flux_sandbox.control_webhooks import WebhookControl
from flux_sandbox.counting import paid_at
from flux_sandbox.documents import DocumentControl
from flux_sandbox.identity_github import GitHub
from flux_sandbox.identity_google import Google
from flux_sandbox.model import Merchant, Sale
from flux_sandbox.options import CLIENT_ID, CLIENT_SECRET
from flux_sandbox.pricing import price
from flux_sandbox.provider import CredentialedSandbox, ProviderSandbox
from flux_sandbox.truth import total_of, truth
from flux_sandbox.world import World

_ORDERS_SHOWN = 100


def _summary(sale: Sale, refunds: Sequence[Sale] = ()) -> Body:
    return {
        "order_id": sale.id,
        "reference_id": sale.reference,
        "location_id": sale.location.id,
        "state": sale.state,
        "created_ms": sale.created,
        "updated_ms": sale.updated,
        "closed_ms": sale.closed,
        "paid": sum(tender.amount for tender in price(sale).tenders),
        "paid_ms": paid_at(sale) if sale.is_paid else None,
        "total": price(sale).total,
        "returns": bool(sale.returns or refunds),
    }


class Control:
    """Answers /sandbox/* for a world and the providers that play in it."""

    def __init__(self, world: World, providers: Sequence[ProviderSandbox]) -> None:
        self.world = world
        self.providers = providers
        self._google, self._github = Google(world), GitHub(world)
        self._webhooks = WebhookControl(world, providers)
        self._upkeep = UpkeepControl(world)
        self._documents = DocumentControl(world, providers)

    @property
    def routes(self) -> list[Route]:
        """The paths under /sandbox, and /healthz."""
        reads: dict[str, Callable[[Request], Any]] = {
            "app": self._app,
            "merchants": self._merchants,
            "credentials": self._credentials,
            "stats": self._stats,
            "orders": self._orders,
        }
        actions: dict[str, Callable[[Body], Any]] = {
            "tokens": self._issue,
            "tokens/revoke": self._revoke,
            "tokens/expire": self._expire,
            "tokens/scopes": self._remove_scopes,
            "orders/sell": self._change(
                lambda b: self.world.sell(text(b, "location_id"), online=b.get("online") is True)
            ),
            "orders/late": self._change(
                lambda b: self.world.sell_late(number(b, "hours", 24.0), text(b, "location_id"))
            ),
            "orders/edit": self._change(
                lambda b: self.world.edit(needed(b, "order_id"), add_units=int(number(b, "add_units", 0)))
            ),
            "orders/refund": self._change(lambda b: self.world.refund(needed(b, "order_id"), indexes(b, "lines"))),
            "orders/customer": self._change(
                lambda b: self.world.set_customer(needed(b, "order_id"), text(b, "customer"))
            ),
            "orders/complete": self._change(lambda b: self.world.complete(text(b, "order_id"))),
            "orders/delete": self._change(lambda b: self.world.delete_order(needed(b, "order_id"))),
            "orders/cancel": self._change(lambda b: self.world.cancel(text(b, "order_id"))),
            "orders/malformed": self._change(
                lambda b: self.world.malform(text(b, "kind") or "types", text(b, "location_id"))
            ),
            "locations/open": self._open_location,
            "locations/timezone": self._timezone,
            "stats/reset": self._reset,
            "faults": self._change_faults,
            "reports": lambda b: self.world.reporting.change(b),
            "identity/rotate": lambda _: {"kid": self._google.rotate()},
        }
        routes = [Route("/healthz", self._health), Route("/sandbox/truth", slow_reader(self._truth))]
        routes += [Route(f"/sandbox/{name}", reader(answer), methods=["GET"]) for name, answer in reads.items()]
        routes += [Route(f"/sandbox/{name}", actor(act), methods=["POST"]) for name, act in actions.items()]
        parts = (self._webhooks, self._upkeep, self._documents, self._google, self._github)
        return routes + [route for part in parts for route in part.routes]

    async def _health(self, _: Request) -> Response:
        return json_answer({"status": "ok"})

    def _app(self, request: Request) -> Any:
        """Tell what the app is registered with: `apps` is everything that `flux apps set` wants of each."""
        url = str(request.base_url).rstrip("/")
        return {
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "apps": {**self._webhooks.apps(url), "google": self._google.app(url), "github": self._github.app(url)},
        }

    def _change(self, act: Callable[[Body], Sale]) -> Callable[[Body], Any]:
        """Return an action that tells what became of an order, and how many events were sent about it."""

        def run(body: Body) -> Any:
            before = self.world.outbox.counts["events"]
            sale = act(body)
            return {**_summary(sale), "webhooks": self.world.outbox.counts["events"] - before}

        return run

    def _merchants(self, _: Request) -> Any:
        end_day = self.world.end_day.isoformat() if self.world.end_day else None
        done = self._authorised()
        authorised = [id_ for id_ in self.world.merchants if id_ in done]
        return {"merchants": self.world.describe(), "authorised": authorised, "end_day": end_day}

    def _authorised(self) -> set[str]:
        return set().union(*(provider.authorised() for provider in self.providers))

    def _stats(self, request: Request) -> Any:
        found = self.world.request_log.snapshot(arrivals=request.query_params.get("arrivals") == "1")
        return {**found, "faults": dict(self.world.faults.injected)}

    def _orders(self, request: Request) -> Any:
        """List orders, newest first, without tests: ?merchant= or ?location_id=, ?state=, ?limit=.

        `returns` says that an order gives something back, or that something on it was given back.
        """
        query = request.query_params
        merchants = [self.world.merchant(query["merchant"])] if "merchant" in query else self.world.merchants.values()
        ids = [location.id for merchant in merchants for location in merchant.locations]
        if "location_id" in query:
            ids = [self.world.location(query["location_id"]).id]
        found = []
        for _, sale in self.world.between(ids, "created", -(2**62), 2**62, descending=True):
            if query.get("state") in (None, sale.state) and not sale.test and not sale.deleted:
                kept = self.world.owner(sale).refunds_on_source
                found.append(_summary(sale, self.world.refunds_of(sale) if kept else ()))
            if len(found) >= int(query.get("limit", _ORDERS_SHOWN)):
                break
        return {"orders": found}

    def _truth(self, request: Request) -> Any:
        """Tell the truth: see `answers.truth_asked`; with ?totals=1 nothing but the sums."""
        query = request.query_params
        days = truth(self.world, **truth_asked(query))
        told: Body = {"totals": total_of(days)}
        if query.get("totals") != "1":
            told["days"] = [day.as_json() for day in days]
        return told

    def _of(self, body: Body, merchant: Merchant | None = None) -> list[ProviderSandbox]:
        """Return the providers that a body asks for: the merchant's own, else the one named, else all."""
        wanted = text(body, "provider") or (merchant.provider if merchant else None)
        found = [provider for provider in self.providers if wanted in (None, provider.name)]
        if not found:
            raise ConfigurationError(f"the sandbox has no provider {wanted!r}")
        return found

    def _credentials(self, request: Request) -> Any:
        """Tell what a machine client signs in with: ?merchant=, and ?provider= when it is not the merchant's own."""
        query = dict(request.query_params)
        merchant = self.world.merchant(needed(query, "merchant"))
        (provider,) = self._of(query, merchant)
        if not isinstance(provider, CredentialedSandbox):
            raise ConfigurationError(
                f"{provider.name} has no machine clients", next_step="Authorise it in the browser instead."
            )
        return provider.credentials(merchant)

    def _issue(self, body: Body) -> Any:
        merchant = self.world.merchant(needed(body, "merchant"))
        lifetime = number(body, "lifetime", 0.0) or None
        return self._of(body, merchant)[0].issue(merchant, body.get("scopes") or (), lifetime)

    def _revoke(self, body: Body) -> Any:
        merchant = self.world.merchant(needed(body, "merchant"))
        return {"revoked": sum(provider.revoke(merchant) for provider in self._of(body, merchant))}

    def _expire(self, body: Body) -> Any:
        name = text(body, "merchant")
        merchant = self.world.merchant(name) if name else None
        return {"expired": sum(provider.expire(merchant) for provider in self._of(body, merchant))}

    def _remove_scopes(self, body: Body) -> Any:
        merchant = self.world.merchant(needed(body, "merchant"))
        scopes = body.get("remove")
        if not isinstance(scopes, list) or not scopes:
            raise ConfigurationError("`remove` must list the scopes to take away")
        for provider in self._of(body, merchant):
            provider.remove_scopes(merchant, scopes)
        return {"removed": scopes}

    def _timezone(self, body: Body) -> Any:
        location = self.world.report_timezone(needed(body, "location_id"), needed(body, "timezone"))
        return {"location_id": location.id, "timezone": location.reported_timezone}

    def _open_location(self, body: Body) -> Any:
        location = self.world.open_location(self.world.merchant(needed(body, "merchant")), needed(body, "name"))
        return {"location_id": location.id, "name": location.name}

    def _reset(self, _: Body) -> Any:
        self.world.request_log.reset()
        self.world.faults.injected.clear()
        return {"reset": True}

    def _change_faults(self, body: Body) -> Any:
        self.world.faults.change(text(body, "faults") or "")
        return {"faults": self.world.faults.rates}
