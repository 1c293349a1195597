"""A shop's products, variants, stock and locations as Shopify's Admin API has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flux_sandbox.documents import documents
from flux_sandbox.shopify import documents as given
from flux_sandbox.shopify.errors import QueryError
from flux_sandbox.shopify.ids import Json, gid, legacy, plain, stamp
from flux_sandbox.shopify.values import Call, Nodes

if TYPE_CHECKING:
    from flux_sandbox.model import Item, Location, Merchant
    from flux_sandbox.world import World

#: Names of quantities that a shop has: https://shopify.dev/docs/apps/build/orders-fulfillment/inventory-management-apps
QUANTITIES = ("available", "committed", "damaged", "incoming", "on_hand", "quality_control", "reserved", "safety_stock")
_SINCE = "2024-01-15T09:00:00Z"


class Catalog:
    """One shop's goods and places. What it returns is made anew when the world's catalog has changed."""

    def __init__(self, world: World, merchant: Merchant) -> None:
        self._world = world
        self._merchant = merchant
        self.refresh()

    def refresh(self) -> None:
        """Forget what was made before."""
        self._products: dict[str, Json] = {}
        self._variants: dict[str, Json] = {}
        self._locations: dict[str, Json] = {}

    # Products

    def products(self) -> list[Json]:
        """Return every product that is there."""
        self._make()
        return [*self._products.values(), *map(given.product, documents(self._merchant, given.PRODUCTS))]

    def variant(self, item: Item) -> Json | None:
        """Return a variant, or None: it has been deleted."""
        self._make()
        return self._variants.get(item.id)

    def _make(self) -> None:
        if self._variants:
            return
        siblings: dict[str, list[Item]] = {}
        for item in self._merchant.items:
            if not item.deleted:
                siblings.setdefault(item.product_id or item.id, []).append(item)
        for product_id, items in siblings.items():
            product = self._product(product_id, items)
            made = [self._variant(product, item) for item in items]
            product["variants"] = Nodes(made)
            self._products[product_id] = product
            self._variants.update({item.id: variant for item, variant in zip(items, made, strict=True)})

    def _product(self, product_id: str, items: Sequence[Item]) -> Json:
        first = items[0]
        number = legacy("Product", product_id)
        return {
            "__typename": "Product",
            "id": gid("Product", number),
            "legacyResourceId": str(number),
            "title": first.name,
            "status": "ACTIVE",
            "vendor": self._merchant.name,
            "productType": first.category,
            "category": None,
            "createdAt": _SINCE,
            "publishedAt": _SINCE,
            "updatedAt": _changed(max(item.updated for item in items)),
        }

    def _variant(self, product: Json, item: Item) -> Json:
        number = legacy("ProductVariant", item.id)
        title = item.variation or "Default Title"
        made: Json = {
            "__typename": "ProductVariant",
            "id": gid("ProductVariant", number),
            "legacyResourceId": str(number),
            "title": title,
            "sku": item.sku or None,
            "barcode": item.upc or None,
            "price": plain(item.price, self._merchant.currency),
            "product": product,
            "createdAt": _SINCE,
            "updatedAt": _changed(item.updated),
            "availableForSale": True,
        }
        made["inventoryItem"] = self._inventory_item(made, item)
        return made

    # Stock

    def _inventory_item(self, variant: Json, item: Item) -> Json:
        number = legacy("InventoryItem", item.id)
        return {
            "__typename": "InventoryItem",
            "id": gid("InventoryItem", number),
            "legacyResourceId": str(number),
            "sku": item.sku or None,
            "tracked": item.tracked,
            "variant": variant,
        }

    def level(self, location: Location, item: Item) -> Json | None:
        """Return how much of an item there is at a location, or None: nobody counts it, or it was deleted."""
        count = self._merchant.counts.get((location.id, item.id))
        variant = self.variant(item)
        if count is None or variant is None:
            return None
        number, place = legacy("InventoryItem", item.id), legacy("Location", location.id)
        at = _changed(count.updated)
        amounts = dict.fromkeys(QUANTITIES, 0) | {"available": count.quantity, "on_hand": count.quantity}

        def quantities(args: Mapping[str, Any]) -> list[Json]:
            unknown = [name for name in args["names"] if name not in QUANTITIES]
            if unknown:
                raise QueryError(f"The quantity names {', '.join(unknown)} are not valid.", "BAD_REQUEST")
            return [
                {
                    "id": f"gid://shopify/InventoryQuantity/{place}?inventory_item_id={number}&name={name}",
                    "name": name,
                    "quantity": amounts[name],
                    "updatedAt": at,
                }
                for name in args["names"]
            ]

        return {
            "__typename": "InventoryLevel",
            "id": f"gid://shopify/InventoryLevel/{place}?inventory_item_id={number}",
            "updatedAt": at,
            "isActive": True,
            "item": variant["inventoryItem"],
            "location": self.location(location),
            "quantities": Call(quantities),
        }

    # Places

    def locations(self) -> list[Json]:
        """Return the shop's locations, closed ones too, by name."""
        return [self.location(one) for one in sorted(self._merchant.locations, key=lambda one: one.name)]

    def location(self, location: Location) -> Json:
        """Return a location."""
        if location.id not in self._locations:
            self._locations[location.id] = self._location(location)
        return self._locations[location.id]

    def _location(self, location: Location) -> Json:
        number = legacy("Location", location.id)

        def levels(args: Mapping[str, Any]) -> Any:
            found = [level for item in self._merchant.items if (level := self.level(location, item)) is not None]
            found += map(given.level, documents(self._merchant, given.LEVELS, location.id))
            return Nodes(found).page(args)

        return {
            "__typename": "Location",
            "id": gid("Location", number),
            "legacyResourceId": str(number),
            "name": location.name,
            "isActive": location.active,
            "fulfillsOnlineOrders": location.active,
            "address": {
                "city": location.city,
                "countryCode": location.country,
                "provinceCode": location.region or None,
                "zip": location.postal_code,
            },
            "inventoryLevels": Call(levels),
        }


def _changed(ms: int) -> str:
    return stamp(ms) if ms else _SINCE
