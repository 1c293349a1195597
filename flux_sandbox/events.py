"""What has just happened in the world, as its listeners are told: every provider announces it in its own words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flux_sandbox.model import Count, Customer, Item, Location, Merchant, Sale, Shift

Kind = Literal[
    "sold",
    "edited",
    "paid",
    "cancelled",
    "refunded",
    "deleted",
    "location_opened",
    "location_changed",
    "stock_changed",  # `item`, `count`, `count_before`
    "item_created",  # `item`
    "item_changed",
    "item_deleted",
    "catalog_published",
    "shift_changed",  # `shift`: begun, ended, edited or deleted
    "uninstalled",  # the app, by the merchant
    "erasure_requested",  # `customer`
]


@dataclass(frozen=True, slots=True)
class WorldEvent:
    """A change of the world, already made.

    `location` is the merchant's first one for what belongs to no one store. A refund's `sale` is the return; of merchants
    whose provider keeps refunds on the order sold, that order is `sale.returns[0].source`.
    """

    kind: Kind
    merchant: Merchant
    location: Location
    sale: Sale | None = None
    amounts: bool = False  # of an edit: what was paid changed too
    late: bool = False  # of a sale: rung up offline, it arrives after the fact
    item: Item | None = None
    count: Count | None = None
    count_before: int = 0
    shift: Shift | None = None
    customer: Customer | None = None
