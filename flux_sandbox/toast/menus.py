"""Published menus as the menus API (v2) gives them, and the stock API's list of what is short.

Menu items and modifiers refer to each other by numbers into maps whose keys are texts of those numbers. Items in stock are
not in the stock list at all (devguide, "Using the stock API").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_sandbox.toast.documents import menu_of, stock_of
from flux_sandbox.toast.errors import invalid
from flux_sandbox.toast.ids import item_multi_location_id, multi_location_id, restaurant_guid
from flux_sandbox.toast.order_context import configured, guid_in, unit_of_measure
from flux_sandbox.toast.selections import modifier_group
from flux_sandbox.toast.values import FIXED, dollars, quantity, stamp

if TYPE_CHECKING:
    from flux_sandbox.model import Item, Location, Merchant, Modifier
    from flux_sandbox.toast.orders import OrderMaker
    from flux_sandbox.world import World

Json = dict[str, Any]

_MOST_SEARCHED = 100
STATUSES = ("OUT_OF_STOCK", "QUANTITY")
#: Until a merchant publishes for the first time, its menus are as old as its first restaurants.
_FIRST_PUBLISHED = 1_609_459_200_000


class Menus:
    """The menus and the stock of every restaurant."""

    def __init__(self, world: World, maker: OrderMaker) -> None:
        self._world = world
        self._maker = maker
        self._published: dict[str, int] = {}  # by merchant id: the last publishing that nobody but a test asked for

    def last_updated(self, merchant: Merchant) -> int:
        """Return when a merchant's menus were last published, UTC milliseconds."""
        return max(_FIRST_PUBLISHED, merchant.published, self._published.get(merchant.id, 0))

    def publish(self, merchant: Merchant, *, new_guids: bool) -> int:
        """Publish a merchant's menus now; with `new_guids` everything on them gets another GUID from now on."""
        now = self._world.now_ms()
        self._published[merchant.id] = now
        if new_guids:
            for location in merchant.locations:
                known = self._maker.published.setdefault(location.id, [])
                known.append((now, len(known) + 1))
        return now

    def _generation(self, location: Location) -> int:
        known = self._maker.published.get(location.id, ())
        return known[-1][1] if known else 0

    def menus(self, merchant: Merchant, location: Location) -> Json:
        """Answer `GET /menus/v2/menus`: everything, in one object."""
        taken = menu_of(merchant, location)
        if taken is not None:
            return dict(taken)
        return _Published(merchant, self._generation(location)).document(
            {
                "restaurantGuid": restaurant_guid(location),
                "lastUpdated": stamp(self.last_updated(merchant)),
                "restaurantTimeZone": location.reported_timezone,
            }
        )

    # Stock

    def _entry(self, location: Location, item: Item) -> Json | None:
        """Return an item's stock, or None: in stock, without a limit."""
        count = self._world.merchants[location.merchant_id].counts.get((location.id, item.id))
        if count is None:
            return None
        guid_ = guid_in("item", item.id, self._generation(location))
        left = count.quantity > 0
        return {
            "guid": guid_,
            "status": "QUANTITY" if left else "OUT_OF_STOCK",
            "quantity": quantity(count.quantity, 0, whole=True) if left else None,
            "multiLocationId": item_multi_location_id(item),
            "versionId": guid_,
        }

    def inventory(self, merchant: Merchant, location: Location) -> list[Json]:
        """Answer `GET /stock/v1/inventory`."""
        taken = stock_of(merchant, location)
        known = {one.get("guid") for one in taken}
        made_up = (self._entry(location, item) for item in merchant.items if not item.deleted)
        entries = [entry for entry in made_up if entry is not None and entry["guid"] not in known]
        entries += [dict(one) for one in taken if one.get("itemGuidValidity") != "INVALID"]
        return [entry for entry in entries if entry.get("status") in STATUSES]

    def search(self, merchant: Merchant, location: Location, body: Any) -> list[Json]:
        """Answer `POST /stock/v1/inventory/search`.

        Raises:
            ApiError: 400 for a body that is not understood, or too many ids.

        """
        asked = body if isinstance(body, dict) else {}
        guids, ids = asked.get("guids") or [], asked.get("multiLocationIds") or []
        if not (isinstance(guids, list) and isinstance(ids, list)) or not (guids or ids):
            raise invalid("guids or multiLocationIds is required")
        if len(guids) + len(ids) > _MOST_SEARCHED:
            raise invalid(f"No more than {_MOST_SEARCHED} items can be asked for")
        generation = self._generation(location)
        items = [item for item in merchant.items if not item.deleted]
        by_guid = {guid_in("item", item.id, generation): item for item in items}
        by_id = {item_multi_location_id(item): item for item in items}
        found = [self._searched(location, by_guid.get(one), {"guid": one}) for one in guids]
        return found + [self._searched(location, by_id.get(one), {"multiLocationId": one}) for one in ids]

    def _searched(self, location: Location, item: Item | None, asked: Json) -> Json:
        taken = stock_of(self._world.merchants[location.merchant_id], location)
        found = next((one for one in reversed(taken) if asked.items() <= one.items()), None)
        if found is not None:
            return dict(found)
        if item is None:
            # The texts "null" are what the API's own example answers with.
            unknown = {"guid": "null", "multiLocationId": "null", **asked}
            return {
                "guid": unknown["guid"],
                "itemGuidValidity": "INVALID",
                "status": "OUT_OF_STOCK",
                "quantity": None,
                "multiLocationId": unknown["multiLocationId"],
                "versionId": unknown["guid"],
            }
        guid_ = guid_in("item", item.id, self._generation(location))
        entry = self._entry(location, item) or {
            "guid": guid_,
            "status": "IN_STOCK",
            "quantity": None,
            "multiLocationId": item_multi_location_id(item),
            "versionId": guid_,
        }
        return {"guid": entry["guid"], "itemGuidValidity": "VALID", **entry}


class _Published:
    """One restaurant's menus in the making: items, and what they refer to by number."""

    def __init__(self, merchant: Merchant, generation: int) -> None:
        self.merchant = merchant
        self.generation = generation
        self.groups: dict[str, Json] = {}
        self.options: dict[str, Json] = {}
        self._numbers: dict[str, int] = {}

    def _number(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers) + 1)

    def _guid(self, kind: str, world_id: str) -> str:
        return guid_in(kind, world_id, self.generation)

    def document(self, head: Json) -> Json:
        categories: dict[str, list[Item]] = {}
        for item in self.merchant.items:
            if not item.deleted:
                categories.setdefault(item.category, []).append(item)
        name = f"{self.merchant.name} menu"
        groups = [self._group(category, items) for category, items in categories.items()]
        menu = {
            **FIXED["menu"],
            "name": name,
            "guid": self._guid("menu", configured(self.merchant, "menu", name)),
            "multiLocationId": multi_location_id(f"{self.merchant.id}|{name}"),
            "menuGroups": groups,
        }
        return {
            **head,
            "menus": [menu],
            "modifierGroupReferences": self.groups,
            "modifierOptionReferences": self.options,
            "preModifierGroupReferences": {},
        }

    def _group(self, category: str, items: Sequence[Item]) -> Json:
        return {
            **FIXED["menu group"],
            "name": category,
            "guid": self._guid("menu group", configured(self.merchant, "menu group", category)),
            "multiLocationId": multi_location_id(f"{self.merchant.id}|group|{category}"),
            "menuItems": [self._item(n, item) for n, item in enumerate(items)],
        }

    def _item(self, n: int, item: Item) -> Json:
        by_group: dict[str, list[Modifier]] = {}
        for modifier in item.modifiers:
            by_group.setdefault(modifier_group(item, modifier.group), []).append(modifier)
        return {
            **FIXED["menu item"],
            **self._entity("item", item.id, item_multi_location_id(item), item.name, n),
            "price": dollars(item.price, whole=True),
            "sku": item.sku,
            "plu": item.upc,
            "unitOfMeasure": unit_of_measure(item.unit),
            "salesCategory": {
                "name": item.category,
                "guid": configured(self.merchant, "sales category", item.category),
            },
            "taxInfo": [
                configured(self.merchant, "tax", tax.name)
                for tax in self.merchant.locations[0].taxes
                if item.tax_class in tax.covers
            ],
            "modifierGroupReferences": [self._modifiers(name, those) for name, those in by_group.items()],
        }

    def _entity(self, kind: str, world_id: str, shared: str, name: str, n: int) -> Json:
        """Return what items and modifier options have in common."""
        return {
            **FIXED["menu entity"],
            "name": name,
            "guid": self._guid(kind, world_id),
            "multiLocationId": shared,
            "sortOrder": n,
        }

    def _modifiers(self, name: str, modifiers: Sequence[Modifier]) -> int:
        """Return the number of a modifier group; groups of the same modifiers are one."""
        key = f"{name}|{'|'.join(modifier.id for modifier in modifiers)}"
        number = self._number(key)
        if str(number) not in self.groups:
            required = any(modifier.required for modifier in modifiers)
            self.groups[str(number)] = {
                **FIXED["modifier group"],
                "referenceId": number,
                "name": name,
                "guid": self._guid("option group", configured(self.merchant, "option group", name)),
                "multiLocationId": multi_location_id(f"{self.merchant.id}|options|{name}"),
                "minSelections": 1 if required else 0,
                "maxSelections": 1 if required else None,
                "requiredMode": "REQUIRED" if required else "OPTIONAL",
                "isMultiSelect": not required,
                "modifierOptionReferences": [self._option(n, one) for n, one in enumerate(modifiers)],
            }
        return number

    def _option(self, n: int, modifier: Modifier) -> int:
        number = self._number(f"option|{modifier.id}")
        self.options.setdefault(
            str(number),
            {
                **FIXED["modifier option"],
                "referenceId": number,
                **self._entity("modifier", modifier.id, multi_location_id(modifier.id), modifier.name, n),
                "price": dollars(modifier.price),
            },
        )
        return number
