"""The web shops of the seeded world: goods that are sent, a counter beside them, and buyers who see another currency.

Their provider keeps refunds on the order that was sold; ids are 64-bit numbers. The first location is the web shop: what is
ordered online belongs to it and is sent from there. The others have a counter.
"""

from __future__ import annotations

from typing import NamedTuple

from flux_sandbox.business_parts import changed, tax
from flux_sandbox.codes import CODES
from flux_sandbox.ids import number
from flux_sandbox.model import Item, Location, Merchant, Tax

# product, product type, tax class, {variant: price in minor units}
_Rows = tuple[tuple[str, str, str, dict[str, int]], ...]

_HARBOR: _Rows = (
    ("Single Origin Coffee", "Coffee", "food", {"12 oz": 1895, "2 lb": 4250, "5 lb": 9800}),
    ("Harbor House Blend", "Coffee", "food", {"12 oz": 1695, "2 lb": 3795}),
    ("Decaf", "Coffee", "food", {"12 oz": 1795}),
    ("Harbor Mug", "Merchandise", "goods", {"White": 1400, "Blue": 1400}),
    ("Harbor Tote", "Merchandise", "goods", {"": 2200}),
    ("Harbor Cap", "Merchandise", "goods", {"Navy": 2600, "Sand": 2600}),
    ("Pour Over Kit", "Equipment", "goods", {"": 6400}),
    ("Burr Grinder", "Equipment", "goods", {"Hand": 7900, "Electric": 18900}),
    ("Paper Filters", "Equipment", "goods", {"100 pieces": 899}),
    ("Tasting Box", "Gifts", "food", {"Four coffees": 4995}),
)
_FJORD: _Rows = (
    ("Kahvipaketti", "Kahvi", "food", {"250 g": 890, "500 g": 1590}),
    ("Pohjoinen Paahto", "Kahvi", "food", {"250 g": 990}),
    ("Muki", "Astiat", "goods", {"Sininen": 1650, "Valkoinen": 1650}),
    ("Ruisleipä lähetyksenä", "Leipä", "food", {"Kaksi": 1290}),
    ("Villasukat", "Tekstiilit", "goods", {"36–39": 2890, "40–44": 2890}),
    ("Pannumyssy", "Tekstiilit", "goods", {"": 3450}),
    ("Lahjapakkaus", "Lahjat", "goods", {"Pieni": 3900, "Suuri": 6900}),
)


class _Place(NamedTuple):
    """A stock location."""

    name: str
    city: str
    region: str
    postal_code: str
    busy: float
    opens: int
    hours: float


def _shop(
    seed: int,
    handle: str,
    name: str,
    tenant: str,
    rows: _Rows,
    places: tuple[_Place, ...],
    money: tuple[str, str, str, str],
    taxes: tuple[Tax, ...],
) -> Merchant:
    currency, country, language, zone = money
    merchant = Merchant(
        number(seed, handle, "location", places[0].name),
        handle,
        name,
        currency,
        country,
        language,
        provider="shopify",
        tenant=tenant,
        refunds_on_source=True,
        counts_when="placed",
        untold=("deleted_goods",),
        id_style="number",
        counter="pos",
        online="web",
        trade="shop",
    )
    for product, category, tax_class, variants in rows:
        for variant, price in variants.items():
            sku, upc = CODES[handle].get((product, variant), ("", ""))
            merchant.items.append(
                Item(
                    number(seed, handle, "variant", product, variant),
                    product,
                    variant,
                    category,
                    price,
                    tax_class,
                    product_id=number(seed, handle, "product", product),
                    sku=sku,
                    upc=upc,
                    tracked=True,
                    updated=changed(seed, handle, product),
                )
            )
    for place in places:
        merchant.locations.append(
            Location(
                number(seed, handle, "location", place.name),
                merchant.id,
                place.name,
                zone,
                currency,
                country,
                place.city,
                place.region,
                place.postal_code,
                taxes,
                opens=place.opens,
                hours=place.hours,
                busy=place.busy,
            )
        )
    return merchant


def shops(seed: int) -> list[Merchant]:
    """Return the web shops: one of the coffee bars' tenant, one of the Finnish café's."""
    harbor = _shop(
        seed,
        "harbor-shop",
        "Harbor Coffee Shop",
        "harbor",
        _HARBOR,
        (
            _Place("Roastery", "Brooklyn", "NY", "11231", 14, 0, 24.0),
            _Place("Pier Store", "New York", "NY", "10004", 10, 9, 10.0),
        ),
        ("USD", "US", "en-US", "America/New_York"),
        (tax("NY State Tax", 40_000, {"goods"}), tax("New York City Tax", 45_000, {"goods"})),
    )
    fjord = _shop(
        seed,
        "fjord-shop",
        "Fjord Verkkokauppa",
        "fjord",
        _FJORD,
        (
            _Place("Verkkokauppa", "Helsinki", "Uusimaa", "00160", 9, 0, 24.0),
            _Place("Satamapuoti", "Helsinki", "Uusimaa", "00140", 6, 10, 9.0),
        ),
        ("EUR", "FI", "fi-FI", "Europe/Helsinki"),
        (
            tax("ALV 13,5 %", 135_000, {"food"}, inclusive=True),
            tax("ALV 25,5 %", 255_000, {"goods"}, inclusive=True),
        ),
    )
    return [harbor, fjord]
