"""What writing one order needs: whose it is, when and where, and how Toast refers to what is configured."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from flux_sandbox.ids import guid
from flux_sandbox.pricing import price
from flux_sandbox.toast.ids import guid_of, order_guid
from flux_sandbox.toast.values import business_day, stamp

if TYPE_CHECKING:
    from flux_sandbox.model import Merchant, Sale

Json = dict[str, Any]

_UNITS = {"IMPERIAL_POUND": "LB", "METRIC_GRAM": "G", "METRIC_KILOGRAM": "KG", "LB": "LB", "OZ": "OZ", "KG": "KG"}


def unit_of_measure(world_unit: str) -> str:
    """Return Toast's name of the unit that goods are weighed in."""
    return _UNITS.get(world_unit, "NONE")


def reference(kind: str, guid_: str) -> Json:
    """Return a reference to something that is configured or employed."""
    return {"guid": guid_, "entityType": kind, "externalId": None}


def configured(merchant: Merchant, kind: str, name: str) -> str:
    """Return the GUID of a merchant's configured object (a tax rate, a dining option) by its name."""
    return _configured(merchant.id, kind, name)


@lru_cache(maxsize=65_536)
def _configured(merchant_id: str, kind: str, name: str) -> str:
    return guid("toast", merchant_id, kind, name)


@lru_cache(maxsize=1_024)
def device(location_id: str, number: int) -> str:
    """Return the id of a restaurant's tablet."""
    return guid("toast", "device", location_id, number)[:18].replace("-", "")


class OrderContext:
    """What writing one order needs: whose it is, when and where, and dice that fall the same way each time."""

    def __init__(self, merchant: Merchant, sale: Sale, published: Sequence[tuple[int, int]] = ()) -> None:
        self.merchant = merchant
        self.sale = sale
        self.location = sale.location
        self.figures = price(sale)
        self.guid = order_guid(sale)
        self.voided = sale.state == "CANCELED"
        self.published = published  # (from when, generation) of menus whose GUIDs were changed

    def made(self, *parts: object) -> str:
        """Return a GUID of something that is only in this order."""
        # Written by hand: an order has dozens, and the uuid module takes most of the time that writing one takes.
        h = hashlib.blake2b("|".join(map(str, (self.guid, *parts))).encode(), digest_size=16).hexdigest()
        return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"

    def dice(self, what: str) -> int:
        """Return 0 to 999, always the same for the same thing of the same order."""
        return zlib.crc32(f"{self.guid}|{what}".encode()) % 1000

    def day(self, ms: int) -> int:
        """Return the restaurant's business date of an instant."""
        return business_day(ms, self.location.timezone, self.merchant.cutoff_hour)

    def menu_guid(self, kind: str, world_id: str) -> str:
        """Return the GUID that a menu entity had when the order was opened."""
        generation = max((n for since, n in self.published if since <= self.sale.created), default=0)
        return guid_in(kind, world_id, generation)

    def voiding(self) -> Json:
        """Return the members that tell of a void."""
        if not self.voided:
            return {"voided": False, "voidDate": None, "voidBusinessDate": None}
        at = self.sale.closed if self.sale.closed is not None else self.sale.updated
        return {"voided": True, "voidDate": stamp(at), "voidBusinessDate": self.day(at)}


def guid_in(kind: str, world_id: str, generation: int) -> str:
    """Return the GUID of a menu entity in a generation of its menus: 0 until GUIDs are changed on request."""
    first = guid_of(kind, world_id)
    return first if not generation else guid(first, "generation", generation)
