"""The restaurants of the seeded world: menus with sizes and extras, a night that ends at four, one open until two.

Their provider keeps refunds on the order that was sold, calls its own ids GUIDs, and does not count an automatic gratuity
as revenue. A size is a modifier of a required group: its price is what it adds to the smallest.
"""

from __future__ import annotations

from flux_sandbox.business_parts import changed, tax
from flux_sandbox.codes import CODES
from flux_sandbox.ids import guid, number
from flux_sandbox.model import Item, Location, Merchant, Modifier, Tax

HANDLE = "harbor-kitchen"

# name, menu group, tax class, unit of weighed goods, price, groups of modifiers, whether stock is counted
_MENU: tuple[tuple[str, str, str, str, int, tuple[str, ...], bool], ...] = (
    ("Clam Chowder", "Starters", "food", "", 895, ("Size", "Bread"), False),
    ("Crab Cakes", "Starters", "food", "", 1495, ("Sauce",), True),
    ("Oysters on the Half Shell", "Starters", "food", "", 325, (), True),
    ("House Salad", "Starters", "food", "", 1095, ("Size", "Dressing"), False),
    ("Truffle Fries", "Starters", "food", "", 825, ("Sauce",), False),
    ("Dock Burger", "Mains", "food", "", 1695, ("Temperature", "Extras"), False),
    ("Lobster Roll", "Mains", "food", "", 2795, ("Extras",), True),
    ("Fish and Chips", "Mains", "food", "", 1895, ("Sauce",), False),
    ("Grilled Salmon", "Mains", "food", "", 2450, ("Temperature",), False),
    ("Mushroom Risotto", "Mains", "food", "", 1995, (), False),
    ("Ribeye Steak", "Mains", "food", "", 3895, ("Temperature", "Sauce"), True),
    ("Seafood Linguine", "Mains", "food", "", 2295, ("Extras",), False),
    ("Chicken Pot Pie", "Mains", "food", "", 1750, (), False),
    ("Smoked Brisket", "Smokehouse", "food", "LB", 2899, (), False),
    ("Key Lime Pie", "Desserts", "food", "", 895, (), True),
    ("Chocolate Chip Cookie", "Desserts", "food", "", 325, (), True),
    ("Butter Croissants", "Desserts", "food", "", 395, (), False),
    ("Fresh Orange Juice", "Drinks", "drink", "", 475, ("Size",), False),
    ("Cold Brew Coffee", "Drinks", "drink", "", 445, ("Size", "Milk"), False),
    ("Lemonade", "Drinks", "drink", "", 425, ("Size",), False),
    ("Harbor Lager", "Bar", "alcohol", "", 750, ("Pour",), False),
    ("Old Fashioned", "Bar", "alcohol", "", 1450, (), False),
    ("House Red", "Bar", "alcohol", "", 1150, ("Pour",), False),
    ("Nightcap Flight", "Bar", "alcohol", "", 1895, (), False),
    ("Single Origin Beans Bag", "Retail", "goods", "", 1895, (), True),
)
#: Groups of modifiers: whether one must be chosen, and what there is.
_GROUPS: dict[str, tuple[bool, dict[str, int]]] = {
    "Size": (True, {"Small": 0, "Large": 250}),
    "Pour": (True, {"Glass": 0, "Pint": 225, "Pitcher": 1450}),
    "Bread": (False, {"Sourdough Bowl": 350, "Oyster Crackers": 0}),
    "Sauce": (False, {"Tartar": 75, "Aioli": 100, "Peppercorn": 250}),
    "Dressing": (False, {"Ranch": 0, "Balsamic": 0, "Blue Cheese": 100}),
    "Temperature": (False, {"Rare": 0, "Medium": 0, "Well Done": 0}),
    "Extras": (False, {"Bacon": 250, "Cheddar": 150, "Avocado": 225, "No Onion": 0}),
    "Milk": (False, {"Oat Milk": 80, "Cream": 0}),
}
# name, zone, city, region, postal code, orders a day, opens at, hours open, taxes in millionths
_STORES = (
    ("Harbor Kitchen Seaport", "America/New_York", "New York", "NY", "10038", 32, 11, 15.0, 88_750),
    ("Harbor Kitchen Riverwalk", "America/Chicago", "Chicago", "IL", "60654", 30, 11, 12.0, 102_500),
    ("Harbor Kitchen Marina", "America/Los_Angeles", "San Francisco", "CA", "94123", 28, 11, 11.0, 86_250),
)
_LIQUOR_TAX = 30_000


def kitchen(seed: int) -> Merchant:
    """Return the restaurants of the tenant that also runs the coffee bars."""
    merchant = Merchant(
        guid(seed, HANDLE),
        HANDLE,
        "Harbor Kitchen",
        "USD",
        "US",
        "en-US",
        cutoff_hour=4,
        provider="toast",
        tenant="harbor",
        refunds_on_source=True,
        counts_when="dated",
        untold=("modifiers_apart", "whole_stock"),
        gratuity_is_tip=True,
        goods_by_product=True,
        id_style="guid",
        counter="In Store",
        trade="restaurant",
    )
    for name, group, tax_class, unit, price, groups, tracked in _MENU:
        sku, upc = CODES[HANDLE].get((name, ""), ("", ""))
        modifiers = tuple(
            Modifier(guid(seed, HANDLE, "modifier", kind, text), text, extra, kind, _GROUPS[kind][0])
            for kind in groups
            for text, extra in _GROUPS[kind][1].items()
        )
        merchant.items.append(
            Item(
                guid(seed, HANDLE, "item", name),
                name,
                "",
                group,
                price,
                tax_class,
                unit,
                modifiers,
                product_id=number(seed, HANDLE, "item", name),
                sku=sku,
                upc=upc,
                tracked=tracked,
                updated=changed(seed, HANDLE, name),
            )
        )
    for name, zone, city, region, postal, busy, opens, hours, rate in _STORES:
        taxes: tuple[Tax, ...] = (tax("Sales Tax", rate, {"food", "drink", "alcohol", "goods"}),)
        if region == "IL":
            taxes += (tax("Liquor Tax", _LIQUOR_TAX, {"alcohol"}),)
        merchant.locations.append(
            Location(
                guid(seed, HANDLE, name),
                merchant.id,
                name,
                zone,
                "USD",
                "US",
                city,
                region,
                postal,
                taxes,
                opens=opens,
                hours=hours,
                busy=busy,
            )
        )
    return merchant
