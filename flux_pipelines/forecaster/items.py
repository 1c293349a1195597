"""What is asked of a forecast endpoint for one item, and what it answered. Light: no heavy imports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Literal

#: Quantities have five decimal places everywhere: the `quantity` type of `domain.tables`.
QUANTITY_STEP = Decimal("0.00001")

SkipStatus = Literal["too_little_history", "stale_history"]


@dataclass(frozen=True, slots=True)
class Item:
    """A product at a location of a connection, with the names it had when it was last sold."""

    connection: str
    tenant: str
    location_id: str
    product_id: str
    product_name: str
    variation: str | None = None

    @property
    def menu_item_id(self) -> str:
        """The item's id in requests: unique over connections and locations."""
        return f"{self.connection}/{self.location_id}/{self.product_id}"


@dataclass(frozen=True, slots=True)
class ItemHistory:
    """What an item sold on each business date its location traded, oldest first, none after `as_of`.

    A date on which the location traded without selling the item is an explicit zero; a date that is absent is unknown.
    """

    item: Item
    as_of: date
    points: Sequence[tuple[date, Decimal]]


@dataclass(frozen=True, slots=True)
class SkippedItem:
    """An item that is not asked about, and why, in words for a reader."""

    item: Item
    status: SkipStatus
    reason: str


@dataclass(frozen=True, slots=True)
class ItemForecast:
    """The answer for one item: predictions for `as_of + 1`, `as_of + 2`, ..., or the reason why there are none."""

    item: Item
    as_of: date
    predictions: Sequence[tuple[date, Decimal]] = ()
    model_type: str | None = None
    failure: str | None = None
