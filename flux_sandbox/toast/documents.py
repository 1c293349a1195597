"""What the sandbox's Toast gives out as it was taken in (`flux_sandbox.documents`), and how it is found.

`orders` are found by their own `businessDate` and `modifiedDate`. `menus` is all that a
restaurant has published: the one taken in last stands in the place of the made-up one. `stock` is an entry of the list of
what is short, or an answer to a search: one that is in stock, or not valid, is found by searching alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flux_pipelines.domain.errors import ConfigurationError
from flux_sandbox.documents import ORDERS, Found, documents
from flux_sandbox.toast.values import date_of, instant_ms

if TYPE_CHECKING:
    from flux_sandbox.model import Location, Merchant, State

Record = Mapping[str, Any]

MENUS, STOCK = "menus", "stock"
KINDS = frozenset({ORDERS, MENUS, STOCK})


def found_by(order: Record) -> Found:
    """Return what an order is found by.

    Raises:
        ConfigurationError: the order does not say.

    """
    guid = order.get("guid")
    if not isinstance(guid, str) or not guid:
        raise ConfigurationError("the order has no `guid`")
    day = order.get("businessDate")
    if not isinstance(day, int) or date_of(str(day)) is None:
        raise ConfigurationError("the order's `businessDate` must be a number like 20190224")
    opened = _instant(order, "openedDate")
    created = _instant(order, "createdDate") if opened is None else opened
    if created is None:
        raise ConfigurationError("the order has neither `openedDate` nor `createdDate`")
    updated, closed = _instant(order, "modifiedDate"), _instant(order, "closedDate")
    state: State = "COMPLETED" if closed is not None else "OPEN"
    if order.get("voided") or order.get("deleted"):
        state = "CANCELED"
    return Found(guid, created, created if updated is None else updated, closed, state)


def _instant(order: Record, name: str) -> int | None:
    value = order.get(name)
    if value is None:
        return None
    at = instant_ms(value) if isinstance(value, str) else None
    if at is None:
        raise ConfigurationError(f"the order's `{name}` must be an instant like 2019-02-24T13:48:44.206+0000")
    return at


def menu_of(merchant: Merchant, here: Location) -> Record | None:
    """Return what a restaurant has published, if it was taken in."""
    taken = documents(merchant, MENUS, here.id)
    return taken[-1] if taken else None


def stock_of(merchant: Merchant, here: Location) -> list[Record]:
    """Return a restaurant's stock entries, of each item the one taken in last."""
    return list(
        {(one.get("guid"), one.get("multiLocationId")): one for one in documents(merchant, STOCK, here.id)}.values()
    )
