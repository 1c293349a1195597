"""Whose accounts at Bunch the sandbox's world has: two stands of one business, each a merchant of its own."""

from __future__ import annotations

from flux_sandbox.business_parts import tax
from flux_sandbox.ids import code
from flux_sandbox.model import Item, Location, Merchant

_GOODS = {"Red Grapes": 450, "White Grapes": 475, "Grape Juice": 325, "Raisin Bread": 625, "Vine Tea": 375}
_CHANGED = 1_740_000_000_000


def stands(seed: int) -> list[Merchant]:
    """Return the merchants without their past: `World.take_in` makes one up."""
    return [
        _stand(seed, "bunch-market", "Bunch at the Market", "America/Chicago", 82_500, 40.0),
        _stand(seed, "bunch-pier", "Bunch on the Pier", "America/Los_Angeles", 95_000, 50.0),
    ]


def _stand(seed: int, handle: str, name: str, zone: str, rate: int, busy: float) -> Merchant:
    id_ = code(seed, "bunch", handle, length=13)
    merchant = Merchant(
        *(id_, handle, name, "USD", "US", "en-US"),
        provider="bunch",
        tenant="Bunch Stands",
        counter="Bunch",
        online="Bunch Online",
    )
    for label, price in _GOODS.items():
        item, group = code(seed, id_, label, length=13), code(seed, id_, "group", label, length=13)
        merchant.items.append(Item(item, label, "", "Stand", price, product_id=group, sku=label, updated=_CHANGED))
    taxes = (tax("Sales Tax", rate, {"food", "drink", "goods"}),)
    place = Location(*(id_, id_, name, zone, "USD", "US", name, "", ""), taxes=taxes, opens=8, hours=10.0, busy=busy)
    merchant.locations.append(place)
    return merchant
