"""What Toast calls the things of the sandbox's world: GUIDs, and ids that are the same at every restaurant of a group."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from flux_sandbox.ids import guid

if TYPE_CHECKING:
    from flux_sandbox.model import Item, Location, Merchant, Sale

_GUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


@lru_cache(maxsize=65_536)
def guid_of(kind: str, world_id: str) -> str:
    """Return the GUID of something: its own id when the world gave it a GUID, else one made of it."""
    return world_id if _GUID.match(world_id) else guid("toast", kind, world_id)


def order_guid(sale: Sale) -> str:
    """Return the GUID of an order; one that is not made up has its own, whatever it looks like."""
    return sale.id if sale.document is not None else guid_of("order", sale.id)


def restaurant_guid(location: Location) -> str:
    """Return the GUID of a restaurant."""
    return guid_of("restaurant", location.id)


def group_guid(merchant: Merchant) -> str:
    """Return the GUID of a merchant's management group."""
    return guid("toast", "group", merchant.id)


@lru_cache(maxsize=65_536)
def multi_location_id(world_id: str) -> str:
    """Return what identifies a menu entity at every restaurant of its group, however often menus are published."""
    if world_id.isascii() and world_id.isdigit():
        return world_id
    digest = hashlib.blake2b(world_id.encode(), digest_size=6).digest()
    return str(100_000_000_000_000_000 + int.from_bytes(digest))


def item_multi_location_id(item: Item) -> str:
    """Return a menu item's multi-location id: the product's own number when it has one."""
    return multi_location_id(item.product_id or item.id)
