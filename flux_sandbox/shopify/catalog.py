"""A shop's products, variants, stock and locations as Shopify's Admin API has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flux_sandbox.documents import documents
from flux_sandbox.shopify import documents as given
from flux_sandbox.shopify.errors import QueryError
from flux_sandbox.shopify.ids import Json, gid, legacy, plain, stamp
from flux_sandbox.shopify.search import LEVEL_FIELDS, filtered
from flux_sandbox.shopify.values import Call, Nodes

if TYPE_CHECKING:
    from flux_sandbox.model import Item, Location, Merchant
    from flux_sandbox.world import World

#: Names of quantities that a shop has: https://shopify.dev/docs/apps/build/orders-fulfillment/inventory-management-apps
QUANTITIES = ("available", "committed", "damaged", "incoming", "on_hand", "quality_control", "reserved", "safety_stock")
_SINCE = "2024-01-15T09:00:00Z"


class Catalog:
    """One shop's goods and places. What it returns is made anew when the world's catalogue has changed."""

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

    def variants(self) -> list[Json]:
        """Return every variant that is there."""
        self._make()
        return list(self._variants.values())

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
            made = [self._variant(product, item, place) for place, item in enumerate(items, start=1)]
            product["variants"] = Nodes(made)
            product["variantsCount"] = {"count": len(made), "precision": "EXACT"}
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
            "handle": "-".join(first.name.lower().split()),
            "status": "ACTIVE",
            "vendor": self._merchant.name,
            "productType": first.category,
            "category": None,
            "tags": [],
            "description": "",
            "descriptionHtml": "",
            "createdAt": _SINCE,
            "publishedAt": _SINCE,
            "updatedAt": _changed(max(item.updated for item in items)),
            "isGiftCard": False,
            "hasOnlyDefaultVariant": len(items) == 1,
            "tracksInventory": any(item.tracked for item in items),
            "totalInventory": Call(lambda _: sum(self._on_hand(item) for item in items if item.tracked)),
            "templateSuffix": None,
            "metafield": None,
            "metafields": Nodes([]),
            "events": Nodes([]),
            "onlineStoreUrl": None,
        }

    def _variant(self, product: Json, item: Item, place: int) -> Json:
        number = legacy("ProductVariant", item.id)
        title = item.variation or "Default Title"
        made: Json = {
            "__typename": "ProductVariant",
            "id": gid("ProductVariant", number),
            "legacyResourceId": str(number),
            "title": title,
            "displayName": f"{item.name} - {title}",
            "sku": item.sku or None,
            "barcode": item.upc or None,
            "price": plain(item.price, self._merchant.currency),
            "compareAtPrice": None,
            "position": place,
            "product": product,
            "createdAt": _SINCE,
            "updatedAt": _changed(item.updated),
            "availableForSale": True,
            "taxable": item.tax_class != "none",
            "inventoryPolicy": "CONTINUE",
            "inventoryQuantity": Call(lambda _: self._on_hand(item) if item.tracked else 0),
            "sellableOnlineQuantity": Call(lambda _: self._on_hand(item) if item.tracked else 0),
            "selectedOptions": [{"name": "Title", "value": title, "optionValue": None}],
            "metafield": None,
            "metafields": Nodes([]),
            "events": Nodes([]),
        }
        made["inventoryItem"] = self._inventory_item(made, item)
        return made

    # Stock

    def inventory_items(self) -> list[Json]:
        """Return the stock side of every variant."""
        return [variant["inventoryItem"] for variant in self.variants()]

    def _on_hand(self, item: Item) -> int:
        counts = self._merchant.counts
        return sum(
            counts[key].quantity for key in ((one.id, item.id) for one in self._merchant.locations) if key in counts
        )

    def _inventory_item(self, variant: Json, item: Item) -> Json:
        number = legacy("InventoryItem", item.id)

        def one(args: Mapping[str, Any]) -> Json | None:
            wanted = args["locationId"]
            return next((level for level in self._levels_of(item) if level["location"]["id"] == wanted), None)

        return {
            "__typename": "InventoryItem",
            "id": gid("InventoryItem", number),
            "legacyResourceId": str(number),
            "sku": item.sku or None,
            "tracked": item.tracked,
            "trackedEditable": {"locked": False, "reason": None},
            "requiresShipping": True,
            "createdAt": _SINCE,
            "updatedAt": _changed(item.updated),
            "unitCost": None,
            "variant": variant,
            "variants": Nodes([variant]),
            "countryCodeOfOrigin": None,
            "provinceCodeOfOrigin": None,
            "harmonizedSystemCode": None,
            "duplicateSkuCount": 0,
            "inventoryHistoryUrl": None,
            "locationsCount": Call(lambda _: {"count": len(self._levels_of(item)), "precision": "EXACT"}),
            "inventoryLevels": Call(lambda args: self.levels(self._levels_of(item), args)),
            "inventoryLevel": Call(one),
        }

    def _levels_of(self, item: Item) -> list[Json]:
        return [level for one in self._merchant.locations if (level := self._level(one, item)) is not None]

    def level(self, location_number: int, item_number: int) -> Json | None:
        """Return a stock level by the numbers of its two sides, or None."""
        for location in self._merchant.locations:
            if legacy("Location", location.id) == location_number:
                for item in self._merchant.items:
                    if not item.deleted and legacy("InventoryItem", item.id) == item_number:
                        return self._level(location, item)
        return None

    def _level(self, location: Location, item: Item) -> Json | None:
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
            "createdAt": _SINCE,
            "updatedAt": at,
            "isActive": True,
            "canDeactivate": False,
            "deactivationAlert": None,
            "item": variant["inventoryItem"],
            "location": self.location(location),
            "quantities": Call(quantities),
        }

    def levels(self, found: Sequence[Json], args: Mapping[str, Any]) -> Any:
        """Return a page of stock levels; `query` filters by updated_at, as everywhere."""
        return Nodes(filtered(found, args.get("query"), LEVEL_FIELDS)).page(args)

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
        created = stamp(int(datetime.fromisoformat(location.created).timestamp() * 1000))
        lines = ["1 Sandbox Street", f"{location.city} {location.region} {location.postal_code}", location.country]

        def levels(args: Mapping[str, Any]) -> Any:
            found = [level for item in self._merchant.items if (level := self._level(location, item)) is not None]
            found += map(given.level, documents(self._merchant, given.LEVELS, location.id))
            return self.levels(found, args)

        def one(args: Mapping[str, Any]) -> Json | None:
            wanted = args["inventoryItemId"]
            every = (self._level(location, item) for item in self._merchant.items)
            return next((level for level in every if level is not None and level["item"]["id"] == wanted), None)

        return {
            "__typename": "Location",
            "id": gid("Location", number),
            "legacyResourceId": str(number),
            "name": location.name,
            "isActive": location.active,
            "isPrimary": location is self._merchant.locations[0],
            "isFulfillmentService": False,
            "activatable": not location.active,
            "deactivatable": location.active,
            "deactivatedAt": None if location.active else created,
            "deletable": False,
            "hasActiveInventory": location.active,
            "hasUnfulfilledOrders": False,
            "fulfillsOnlineOrders": location.active,
            "shipsInventory": location.active,
            "fulfillmentService": None,
            "addressVerified": True,
            "createdAt": created,
            "updatedAt": created,
            "address": {
                "address1": lines[0],
                "address2": None,
                "city": location.city,
                "country": location.country,
                "countryCode": location.country,
                "formatted": lines,
                "latitude": None,
                "longitude": None,
                "phone": None,
                "province": location.region or None,
                "provinceCode": location.region or None,
                "zip": location.postal_code,
            },
            "localPickupSettingsV2": None,
            "metafield": None,
            "metafields": Nodes([]),
            "inventoryLevels": Call(levels),
            "inventoryLevel": Call(one),
        }


def _changed(ms: int) -> str:
    return stamp(ms) if ms else _SINCE
