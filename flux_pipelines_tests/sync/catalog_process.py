"""Makes `products` of a catalog of 100,000 variants, twice, and says how much memory the process took: run as a module."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from flux_pipelines.domain.tables import PRODUCTS
from flux_pipelines.providers.base import Location, Record
from flux_pipelines.providers.registry import provider
from flux_pipelines.sync.scd2 import merge
from flux_pipelines_tests.sync.streamfiles import COLLECTED, record, run_sql

_TIME = "2026-01-01T00:00:00Z"


def shopify(products: int, each: int) -> Iterator[Record]:
    """Yield products as `queries/products.graphql` asks for them."""
    for number in range(products):
        variants = [
            {
                "id": f"gid://shopify/ProductVariant/{number * each + n}",
                "legacyResourceId": str(number * each + n),
                "title": f"Size {n} / Colour {n}",
                "sku": f"K-{number}-{n}",
                "barcode": None,
                "price": "4.50",
                "availableForSale": True,
                "createdAt": _TIME,
                "updatedAt": _TIME,
                "inventoryItem": {"id": f"gid://shopify/InventoryItem/{number * each + n}", "tracked": True},
            }
            for n in range(each)
        ]
        head = {"legacyResourceId": str(number), "title": f"Product {number}", "status": "ACTIVE", "updatedAt": _TIME}
        yield record("product", {**head, "productType": "Tea", "category": None, "variants": {"nodes": variants}})


def square(items: int, each: int) -> Iterator[Record]:
    """Yield items with their variations, and those by themselves as Square lists them too."""
    everywhere = {"updated_at": _TIME, "version": 1, "is_deleted": False, "present_at_all_locations": True}
    for number in range(items):
        variations = [
            {
                "type": "ITEM_VARIATION",
                "id": f"V{number}-{n}",
                **everywhere,
                "item_variation_data": {
                    "item_id": f"I{number}",
                    "name": f"Size {n}",
                    "sku": f"K-{number}-{n}",
                    "ordinal": n,
                    "pricing_type": "FIXED_PRICING",
                    "price_money": {"amount": 450, "currency": "USD"},
                    "sellable": True,
                    "stockable": True,
                },
            }
            for n in range(each)
        ]
        told = {"name": f"Item {number}", "description": "Tea " * 200, "variations": variations}
        yield record("item", {"type": "ITEM", "id": f"I{number}", **everywhere, "item_data": told})
        yield from (record("item_variation", one) for one in variations)


def toast(restaurants: int, each: int) -> Iterator[Record]:
    """Yield the menus of restaurants: as many items as options of modifiers, every tenth item by size."""
    for restaurant in range(restaurants):

        def named(what: str, number: int, restaurant: int = restaurant) -> dict[str, object]:
            one = {
                "name": f"{what} {number}",
                "guid": f"{what}-{restaurant}-{number}",
                "price": 4.5,
                "sku": "",
                "plu": "",
            }
            return {**one, "multiLocationId": f"{what}{restaurant}00{number}", "description": "Tea " * 50}

        groups = each // 10
        items = [
            named("item", n)
            | (
                {"pricingStrategy": "BASE_PRICE", "pricingRules": None}
                if n % 10
                else {
                    "pricingStrategy": "SIZE_PRICE",
                    "pricingRules": {"sizeSpecificPricingGuid": f"group-{restaurant}-{n % groups}"},
                }
            )
            for n in range(each)
        ]
        menu = {
            "lastUpdated": "2026-01-01T00:00:00.000+0000",
            "menus": [{"menuGroups": [{"name": f"G{n}", "menuItems": items[n::20]} for n in range(20)]}],
            "modifierGroupReferences": {
                str(g): {
                    "referenceId": g,
                    "modifierOptionReferences": list(range(g * 10, g * 10 + 10)),
                    **named("group", g),
                }
                for g in range(groups)
            },
            "modifierOptionReferences": {str(n): {"referenceId": n, **named("option", n)} for n in range(each)},
        }
        yield record("menu", menu, f"R{restaurant}")


def main(folder: str, name: str, records: str, each: str) -> None:
    """Make the table from nothing and again from what it was."""
    given = {"shopify": shopify, "square": square, "toast": toast}[name](int(records), int(each))
    places = [
        Location(f"R{n}", "A place", "America/New_York", "USD") for n in range(int(records) if name == "toast" else 3)
    ]
    made = run_sql(Path(folder), provider(name), "products", given, places, slot="current")
    first = merge(PRODUCTS, None, made.rows, COLLECTED)
    again = merge(PRODUCTS, first, made.rows, COLLECTED + timedelta(hours=1))
    # Not `ru_maxrss`, which begins with what the process had that started this one.
    peak = int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) // 1024
    told = {"rows": made.rows.num_rows, "bad": len(made.bad), "unchanged": again.equals(first), "peak": peak}
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
