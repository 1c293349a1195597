"""A restaurant's configuration as `config/v2` lists it: a page at a time, by a token in a header.

A list that was published again between two of its pages answers 409: whoever pages begins anew, without a token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flux_sandbox.ids import token
from flux_sandbox.toast.errors import invalid, missing, republished
from flux_sandbox.toast.ids import multi_location_id
from flux_sandbox.toast.order_context import configured, guid_in
from flux_sandbox.toast.search import instant
from flux_sandbox.toast.selections import modifier_group
from flux_sandbox.toast.values import dollars, rate

if TYPE_CHECKING:
    from flux_sandbox.model import Location, Merchant
    from flux_sandbox.world import World

Json = dict[str, Any]

#: The page size is the server's, and smaller than any list, so that every client has to page.
PER_PAGE = 2
NEXT = "Toast-Next-Page-Token"
#: What nothing is configured of in the sandbox's world.
_EMPTY = (
    "tables",
    "serviceAreas",
    "preModifiers",
    "preModifierGroups",
    "priceGroups",
    "printers",
    "tipWithholding",
)


class Configuration:
    """The configuration of every restaurant."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._published: dict[str, tuple[int, int]] = {}  # by merchant id: how often, and when last (ms)
        self._tokens: dict[str, tuple[str, str, int, int]] = {}  # token -> merchant, kind, publishing, position

    def publish(self, merchant: Merchant) -> int:
        """Publish a merchant's configuration again: page tokens given out before are dead."""
        times, _ = self._published.get(merchant.id, (0, 0))
        self._published[merchant.id] = (times + 1, self._world.now_ms())
        return times + 1

    def listed(
        self, merchant: Merchant, location: Location, kind: str, query: Mapping[str, str]
    ) -> tuple[list[Json], dict[str, str]]:
        """Answer `GET /config/v2/{kind}`: one page, and the header that leads to the next.

        Raises:
            ApiError: 404 for a kind that does not exist, 400 for a bad token or instant, 409 after a publishing.

        """
        every = self._every(merchant, location, kind)
        times, at = self._published.get(merchant.id, (0, 0))
        if "lastModified" in query and instant(query, "lastModified") > at:
            return [], {}
        first = 0
        if page := query.get("pageToken"):
            known = self._tokens.get(page)
            if known is None or known[:2] != (merchant.id, kind):
                raise invalid("Invalid pageToken")
            if known[2] != times:
                raise republished()
            first = known[3]
        shown, rest = every[first : first + PER_PAGE], every[first + PER_PAGE :]
        if not rest:
            return shown, {}
        following = token("toast config", merchant.id, kind, times, first + PER_PAGE)
        self._tokens[following] = (merchant.id, kind, times, first + PER_PAGE)
        return shown, {NEXT: following}

    def one(self, merchant: Merchant, location: Location, kind: str, guid: str) -> Json:
        """Answer `GET /config/v2/{kind}/{guid}`.

        Raises:
            ApiError: 404.

        """
        for found in self._every(merchant, location, kind):
            if found["guid"] == guid:
                return found
        raise missing(f"{kind} {guid}")

    def _every(self, merchant: Merchant, location: Location, kind: str) -> list[Json]:
        makers: dict[str, Callable[[Merchant, Location], list[Json]]] = {
            "discounts": self._discounts,
            "diningOptions": lambda m, _: _named(m, "DiningOption", "dining", ("Dine In", "Delivery", "Take Out")),
            "revenueCenters": lambda m, _: _named(m, "RevenueCenter", "revenue center", ("Dining Room", "Bar")),
            "salesCategories": lambda m, _: _named(m, "SalesCategory", "sales category", _categories(m)),
            "serviceCharges": self._charges,
            "taxRates": self._taxes,
            "voidReasons": lambda m, _: _named(m, "VoidReason", "void reason", ("Server error", "86ed", "Walked out")),
            "noSaleReasons": lambda m, _: _named(m, "NoSaleReason", "no sale reason", ("Change",)),
            "payoutReasons": lambda m, _: _named(m, "PayoutReason", "payout reason", ("Supplies",)),
            "alternatePaymentTypes": lambda m, _: _named(
                m, "AlternatePaymentType", "alternate payment", ("Voucher", "Meal plan", "Invoice")
            ),
            "breakTypes": lambda m, _: _named(m, "BreakType", "break type", ("Unpaid break", "Rest")),
            "cashDrawers": lambda m, here: _named(m, "CashDrawer", "cash drawer", (here.id,)),
            "restaurantServices": lambda m, _: _named(m, "RestaurantService", "service", ("All day",)),
            "menus": lambda m, _: _named(m, "Menu", "menu", (f"{m.name} menu",)),
            "menuGroups": lambda m, _: _named(m, "MenuGroup", "menu group", _categories(m)),
            "menuItems": self._items,
            "menuOptionGroups": lambda m, _: _named(m, "MenuOptionGroup", "option group", _option_groups(m)),
        }
        if kind in _EMPTY:
            return []
        if kind not in makers:
            raise missing(f"/config/v2/{kind}")
        return makers[kind](merchant, location)

    def _discounts(self, merchant: Merchant, _: Location) -> list[Json]:
        return [
            {**one, "type": "PERCENT", "percentage": None, "amount": None, "active": True, "selectionType": "CHECK"}
            for one in _named(merchant, "Discount", "discount", ("Loyalty 10%", "Voucher", "Comp", "Staff", "One off"))
        ]

    def _charges(self, merchant: Merchant, _: Location) -> list[Json]:
        return [
            {
                **one,
                "amountType": "PERCENT",
                "percent": rate(18_000_000),
                "amount": None,
                "gratuity": one["name"] == "Auto gratuity",
                "taxable": False,
                "serviceChargeCalculation": "POST_DISCOUNT",
            }
            for one in _named(merchant, "ServiceCharge", "charge", ("Auto gratuity", "Delivery fee", "Kitchen fee"))
        ]

    def _taxes(self, merchant: Merchant, location: Location) -> list[Json]:
        return [
            {
                "guid": configured(merchant, "tax", tax.name),
                "entityType": "TaxRate",
                "name": tax.name,
                "isDefault": True,
                "rate": rate(tax.rate),
                "type": "PERCENT",
                "roundingType": "HALF_EVEN",
                "taxTable": [],
            }
            for tax in location.taxes
        ]

    def _items(self, merchant: Merchant, _: Location) -> list[Json]:
        return [
            {
                "guid": guid_in("item", item.id, 0),
                "entityType": "MenuItem",
                "externalId": None,
                "name": item.name,
                "multiLocationId": multi_location_id(item.product_id or item.id),
                "sku": item.sku,
                "plu": item.upc,
                "price": dollars(item.price),
                "optionGroups": [
                    {"guid": configured(merchant, "option group", name), "entityType": "MenuOptionGroup"}
                    for name in dict.fromkeys(modifier_group(item, modifier.group) for modifier in item.modifiers)
                ],
            }
            for item in merchant.items
            if not item.deleted
        ]


def _named(merchant: Merchant, entity: str, kind: str, names: tuple[str, ...]) -> list[Json]:
    return [
        {"guid": configured(merchant, kind, name), "entityType": entity, "externalId": None, "name": name}
        for name in names
    ]


def _categories(merchant: Merchant) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item.category for item in merchant.items))


def _option_groups(merchant: Merchant) -> tuple[str, ...]:
    return tuple(dict.fromkeys(modifier_group(item, one.group) for item in merchant.items for one in item.modifiers))
