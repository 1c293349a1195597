"""Records that are not made up, as the objects that queries are answered from: see `flux_sandbox.documents`.

They have the shape of the GraphQL Admin API, connections as `nodes` or as `edges`. A field that a record does not have is null.
Sales agreements, which no order of Shopify's is without, are worked out of an order that does not have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flux_pipelines.domain.errors import ConfigurationError
from flux_sandbox.documents import ORDERS, Found
from flux_sandbox.shopify.agreements import AGREEMENTS, SALES
from flux_sandbox.shopify.ids import Json, read_gid
from flux_sandbox.shopify.ledger import agreements_of
from flux_sandbox.shopify.values import Call, Nodes

if TYPE_CHECKING:
    from flux_sandbox.model import State

PRODUCTS, LEVELS = "products", "inventoryLevels"
#: What the sandbox takes in, by the names of the connections that give it out.
KINDS = frozenset({ORDERS, PRODUCTS, LEVELS})
_PAID = frozenset({"PAID", "PARTIALLY_REFUNDED", "REFUNDED"})


class Given(dict[str, Any]):
    """An object of a record that was taken in."""

    def __missing__(self, _: str) -> None:
        return None


def product(body: Mapping[str, Any]) -> Json:
    """Return a Product."""
    return _object(body, "Product")


def level(body: Mapping[str, Any]) -> Json:
    """Return an InventoryLevel: of its quantities, those that are asked for."""
    made = _object(body, "InventoryLevel")
    every = made["quantities"] or []
    made["quantities"] = Call(lambda args: [one for one in every if one["name"] in args["names"]])
    return made


def order(body: Mapping[str, Any]) -> Json:
    """Return an Order."""
    made = _object(body, "Order")
    made["refunds"] = made["refunds"] or []
    for refund in made["refunds"]:
        refund["__typename"] = "Refund"
        refund["orderAdjustments"] = refund["orderAdjustments"] or Nodes([])
    given = made["agreements"]
    if isinstance(given, Nodes) and given.items:
        for agreement in given.items:
            _typed(agreement)
        return made
    try:
        made["agreements"] = Nodes(agreements_of(made))
    except (ArithmeticError, KeyError, TypeError, ValueError, AttributeError):
        made["agreements"] = Nodes([])  # of figures that no order of Shopify's can have nothing can be worked out
    return made


def _typed(agreement: Json) -> None:
    """Say which types of the schema an agreement and its sales are, where the record does not."""
    agreement.setdefault("__typename", AGREEMENTS.get(agreement["reason"], "OrderAgreement"))
    sales = agreement["sales"]
    for sale in sales.items if isinstance(sales, Nodes) else ():
        sale.setdefault("__typename", SALES.get(sale["lineType"], "UnknownSale"))


def created(body: Mapping[str, Any]) -> int | None:
    """Return when an order was made, UTC milliseconds, if it says so."""
    return _moment(body, "createdAt")


def find_by(body: Mapping[str, Any]) -> Found:
    """Return what an order is found by.

    Raises:
        ConfigurationError: the order does not say.

    """
    named = read_gid(str(body.get("id")))
    if named is None or named[0] != "Order":
        raise ConfigurationError("the order has no `id` like gid://shopify/Order/450789469")
    _moment(body, "createdAt")
    processed, updated = _moment(body, "processedAt"), _moment(body, "updatedAt")
    if processed is None or updated is None:
        raise ConfigurationError("the order does not say when it was processed and updated: `processedAt`, `updatedAt`")
    cancelled, status = _moment(body, "cancelledAt"), body.get("displayFinancialStatus")
    state: State = "COMPLETED" if status in _PAID else "OPEN"
    if cancelled is not None or status == "VOIDED":
        state = "CANCELED"
    return Found(str(named[1]), processed, updated, cancelled or _moment(body, "closedAt"), state)


def _moment(body: Mapping[str, Any], name: str) -> int | None:
    """Return an instant in UTC milliseconds."""
    text = body.get(name)
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        at = datetime.min  # noqa: DTZ901 (has no offset, which is refused below)
    if at.tzinfo is None:
        raise ConfigurationError(f"`{name}` is no instant with an offset from UTC: {text!r}")
    return int(at.timestamp() * 1000)


def _object(body: Mapping[str, Any], kind: str) -> Json:
    return Given({"__typename": kind} | {name: _value(value) for name, value in body.items()})


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "nodes" in value:
        return Nodes([_value(one) for one in value["nodes"]])
    if "edges" in value:
        return Nodes([_value(one["node"]) for one in value["edges"]])
    return Given({name: _value(one) for name, one in value.items()})
