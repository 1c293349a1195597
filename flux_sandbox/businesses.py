"""The businesses of the seeded world, as `businesses.toml` has them: what they sell, where, and under which taxes.

Their trade says how: over a counter; in restaurants and web shops, whose providers keep refunds on the order that was sold. A
restaurant calls its own ids GUIDs, sells sizes as modifiers that one must choose, and counts an automatic gratuity as no revenue. Ids
of a web shop are 64-bit numbers; its first location is the shop itself: what is ordered online belongs to it and is sent from there.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from flux_sandbox.business_parts import changed, tax
from flux_sandbox.ids import code, guid, number
from flux_sandbox.model import Item, Location, Merchant, Modifier, Trade
from flux_sandbox.people import settle

Json = dict[str, Any]

_TRADES: dict[Trade, Json] = {
    "counter": {},
    "restaurant": {
        "refunds_on_source": True,
        "counts_when": "dated",
        "gratuity_is_tip": True,
        "goods_by_product": True,
        "id_style": "guid",
    },
    "shop": {"refunds_on_source": True, "counts_when": "placed", "id_style": "number"},
}
_FIELDS = (
    *("handle", "name", "currency", "country", "language"),
    *("cutoff_hour", "provider", "tenant", "counter", "online", "trade"),
)


@cache
def _described() -> list[Json]:
    found: list[Json] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))["merchants"]
    return found


class _Ids:
    """The ids of one merchant's things, in the style of its provider; the same for the same seed."""

    def __init__(self, seed: int, said: Json) -> None:
        self._seed, self._handle, self._trade = seed, said["handle"], said["trade"]
        self.merchant = self.location(said["locations"][0][0]) if self._trade == "shop" else self._merchant()

    def _merchant(self) -> str:
        of = (self._seed, self._handle)
        return guid(*of) if self._trade == "restaurant" else "ML" + code(*of, length=11)

    def location(self, name: str) -> str:
        of = (self._seed, self._handle)
        if self._trade == "shop":
            return number(*of, "location", name)
        return guid(*of, name) if self._trade == "restaurant" else "L" + code(*of, name, length=12)

    def item(self, name: str, variation: str) -> tuple[str, str]:
        """Return the ids of an item and of the product that it is a variation of."""
        of = (self._seed, self._handle)
        if self._trade == "restaurant":
            return guid(*of, "item", name), number(*of, "item", name)
        if self._trade == "shop":
            return number(*of, "variant", name, variation), number(*of, "product", name)
        return code(*of, "variation", name, variation), code(*of, "item", name)

    def modifier(self, group: str, name: str) -> str:
        make = guid if self._trade == "restaurant" else code
        return make(self._seed, self._handle, "modifier", group, name)


def _merchant(seed: int, said: Json) -> Merchant:
    ids, restaurant = _Ids(seed, said), said["trade"] == "restaurant"
    fields = {name: said[name] for name in _FIELDS}
    merchant = Merchant(ids.merchant, **fields, **_TRADES[said["trade"]], untold=tuple(said["untold"]))

    def modifiers(groups: list[str]) -> tuple[Modifier, ...]:
        return tuple(
            Modifier(
                ids.modifier(group, name), name, price, group if restaurant else "", group in said.get("required", ())
            )
            for group in groups
            for name, price in said["modifiers"][group].items()
        )

    for name, category, tax_class, unit, groups, prices in said["items"]:
        for variation, price in prices.items():
            id_, product_id = ids.item(name, variation)
            sku, upc = said.get("codes", {}).get(f"{name}|{variation}", ("", ""))
            merchant.items.append(
                Item(
                    id_,
                    name,
                    variation,
                    category,
                    price,
                    tax_class,
                    unit,
                    modifiers(groups),
                    product_id=product_id,
                    sku=sku,
                    upc=upc,
                    tracked=not unit and (name in said["counted"] or category in said["counted"]),
                    updated=changed(seed, said["handle"], name),
                )
            )
    for name, zone, city, region, postal_code, busy, opens, hours, taxes, *more in said["locations"]:
        other = dict(*more)
        merchant.locations.append(
            Location(
                ids.location(other.pop("key", name)),
                merchant.id,
                name,
                zone,
                merchant.currency,
                merchant.country,
                city,
                region,
                postal_code,
                tuple(tax(*one[:3], inclusive=one[3:] == [True]) for one in said["taxes"][taxes]),
                busy=busy,
                opens=opens,
                hours=hours,
                **other,
            )
        )
    return merchant


def businesses(seed: int) -> list[Merchant]:
    """Return the merchants of the seeded world, with their people and without any history."""
    merchants = [_merchant(seed, said) for said in _described()]
    for merchant in merchants:
        settle(seed, merchant)
        merchant.published = max(item.updated for item in merchant.items)
    return merchants
