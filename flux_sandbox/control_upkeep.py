"""The sandbox's own endpoints about what is beside orders: its truth, and the strings a test pulls."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from flux_pipelines.domain.errors import ConfigurationError
from flux_sandbox.answers import Body, actor, needed, slow_reader, text, truth_asked, whole
from flux_sandbox.model import Count, Item, Merchant, Shift
from flux_sandbox.people import personal
from flux_sandbox.truth_feeds import (
    inventory_truth,
    labor_truth,
    payments_total,
    payments_truth,
    products_truth,
)
from flux_sandbox.world import World


def _item(item: Item) -> Body:
    return {"item_id": item.id, "price": item.price, "updated_ms": item.updated, "deleted": item.deleted}


def _count(count: Count) -> Body:
    return {"quantity": count.quantity, "updated_ms": count.updated}


def _shift(shift: Shift) -> Body:
    return {
        "shift_id": shift.id,
        "employee_id": shift.employee.id,
        "location_id": shift.location.id,
        "start_ms": shift.start,
        "end_ms": shift.end,
        "deleted": shift.deleted,
    }


def _instant(body: Body, name: str) -> int | None:
    value = text(body, name)
    try:
        at = datetime.fromisoformat(value) if value else None
    except ValueError as error:
        raise ConfigurationError(f"`{name}` is not an instant: {error}") from error
    if at is not None and at.tzinfo is None:
        raise ConfigurationError(f"`{name}` must say its offset from UTC")
    return int(at.timestamp() * 1000) if at else None


def _number(body: Body, name: str) -> int:
    value = whole(body, name)
    if value is None:
        raise ConfigurationError(f"`{name}` is missing")
    return value


class UpkeepControl:
    """Answers what is beside orders, below /sandbox."""

    def __init__(self, world: World) -> None:
        self.world = world

    @property
    def routes(self) -> list[Route]:
        """The paths."""
        reads: dict[str, Callable[[Request], Any]] = {
            "truth/payments": self._payments,
            "truth/products": lambda r: {"products": products_truth(self.world, r.query_params.get("merchant"))},
            "truth/inventory": lambda r: {"counts": inventory_truth(self.world, r.query_params.get("merchant"))},
            "truth/labor": self._labor,
            "people": self._people,
            "customers": self._customers,
        }
        world, who = self.world, self._merchant
        actions: dict[str, Callable[[Body], Any]] = {
            "catalog/change": lambda b: _item(
                world.change_item(who(b), needed(b, "item"), price=whole(b, "price"), renamed=text(b, "name"))
            ),
            "catalog/add": lambda b: _item(
                world.add_item(
                    who(b),
                    needed(b, "name"),
                    _number(b, "price"),
                    category=text(b, "category") or "",
                    variation=text(b, "variation") or "",
                    sku=text(b, "sku") or "",
                )
            ),
            "catalog/delete": lambda b: _item(world.delete_item(who(b), needed(b, "item"))),
            "catalog/publish": lambda b: {"published_ms": world.publish(who(b))},
            "stock/set": lambda b: _count(
                world.set_stock(needed(b, "location_id"), needed(b, "item"), _number(b, "quantity"))
            ),
            "shifts/clock_in": lambda b: _shift(world.clock_in(needed(b, "location_id"), text(b, "employee_id"))),
            "shifts/clock_out": lambda b: _shift(
                world.clock_out(needed(b, "shift_id"), breaks=whole(b, "breaks") or 0, tips=whole(b, "tips") or 0)
            ),
            "shifts/edit": lambda b: _shift(
                world.edit_shift(
                    needed(b, "shift_id"),
                    start=_instant(b, "start"),
                    end=_instant(b, "end"),
                    breaks=whole(b, "breaks"),
                    deleted=b.get("deleted") is True,
                )
            ),
            "customers/erase": lambda b: {"customer_id": world.ask_for_erasure(who(b), needed(b, "customer")).id},
            "uninstall": self._uninstall,
            "withhold": self._withhold,
        }
        routes = [Route(f"/sandbox/{name}", slow_reader(read), methods=["GET"]) for name, read in reads.items()]
        return routes + [Route(f"/sandbox/{name}", self._actor(act), methods=["POST"]) for name, act in actions.items()]

    def _actor(self, act: Callable[[Body], Any]) -> Any:
        """Return an action's endpoint, which tells how many events were sent about it."""

        def run(body: Body) -> Any:
            before = self.world.outbox.counts["events"]
            done = act(body)
            return {**done, "webhooks": self.world.outbox.counts["events"] - before}

        return actor(run)

    def _merchant(self, body: Body) -> Merchant:
        return self.world.merchant(needed(body, "merchant"))

    def _payments(self, request: Request) -> Any:
        """Tell what was paid: see `answers.truth_asked`."""
        rows = payments_truth(self.world, **truth_asked(request.query_params))
        return {"totals": payments_total(rows), "payments": [row.as_json() for row in rows]}

    def _labor(self, request: Request) -> Any:
        """Tell who worked: parameters as of payments."""
        return {"time_entries": labor_truth(self.world, **truth_asked(request.query_params))}

    def _people(self, request: Request) -> Any:
        """Tell every text about a person that must never be in the lake: ?merchant=."""
        name = request.query_params.get("merchant")
        return personal([self.world.merchant(name)] if name else list(self.world.merchants.values()))

    def _customers(self, request: Request) -> Any:
        """List a merchant's customers, and how many orders are theirs: ?merchant=."""
        merchant = self.world.merchant(request.query_params.get("merchant", ""))
        orders: dict[str, list[str]] = {customer.id: [] for customer in merchant.customers}
        ids = [location.id for location in merchant.locations]
        for _, sale in self.world.between(ids, "created", -(2**62), 2**62):
            if sale.customer is not None:
                orders[sale.customer.id].append(sale.id)
        return {
            "customers": [
                {"customer_id": one.id, "email": one.email, "phone": one.phone, "orders": orders[one.id]}
                for one in merchant.customers
            ]
        }

    def _withhold(self, body: Body) -> Any:
        self.world.withhold(self._merchant(body), back=body.get("back") is True)
        return {"withheld": sorted(self.world.withheld)}

    def _uninstall(self, body: Body) -> Any:
        merchant = self._merchant(body)
        self.world.uninstall(merchant)
        return {"merchant_id": merchant.id}
