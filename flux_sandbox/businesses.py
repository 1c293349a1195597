"""The businesses of the seeded world: what they sell, where, and under which taxes.

They differ in what trips up integrations: currencies without decimals, prices that include tax, three time zones in one
account, a store that never closes, a store that has closed down, cash rounding.
"""

from __future__ import annotations

from flux_sandbox.business_parts import changed, tax
from flux_sandbox.businesses_kitchen import kitchen
from flux_sandbox.businesses_shop import shops
from flux_sandbox.codes import CODES
from flux_sandbox.ids import code
from flux_sandbox.model import Item, Location, Merchant, Modifier, Tax
from flux_sandbox.people import settle

#: Where these businesses have their accounts, and what a sale at the counter says of where it was made.
_PROVIDER, _COUNTER = "square", "Square Point of Sale"
_EVERYTHING = frozenset({"food", "drink", "goods"})
_PREPARED = frozenset({"food", "drink"})
_COUNTED = frozenset(
    {"Bakery", "Retail", "和菓子", "物販", "Leivonnaiset", "Kauppa"}
)  # categories whose stock is counted

# name, category, tax class, unit of weighed goods, modifiers on offer, {variation: price in minor units}
_Row = tuple[str, str, str, str, str, dict[str, int]]

_HARBOR: tuple[_Row, ...] = (
    ("Drip Coffee", "Coffee", "drink", "", "milk", {"Small": 275, "Medium": 325, "Large": 375}),
    ("Cold Brew", "Coffee", "drink", "", "milk", {"Medium": 425, "Large": 495}),
    ("Espresso", "Coffee", "drink", "", "shot", {"Single": 275, "Double": 350}),
    ("Americano", "Coffee", "drink", "", "shot", {"Small": 325, "Large": 395}),
    ("Cappuccino", "Coffee", "drink", "", "milk", {"Small": 425, "Large": 495}),
    ("Latte", "Coffee", "drink", "", "milk", {"Small": 450, "Medium": 495, "Large": 545}),
    ("Mocha", "Coffee", "drink", "", "milk", {"Small": 495, "Large": 575}),
    ("Flat White", "Coffee", "drink", "", "milk", {"Regular": 475}),
    ("Chai Latte", "Tea", "drink", "", "milk", {"Regular": 475}),
    ("Matcha Latte", "Tea", "drink", "", "milk", {"Regular": 525}),
    ("Breakfast Tea", "Tea", "drink", "", "", {"Regular": 295}),
    ("Hot Chocolate", "Other drinks", "drink", "", "milk", {"Small": 395, "Large": 465}),
    ("Orange Juice", "Other drinks", "drink", "", "", {"Regular": 450}),
    ("Butter Croissant", "Bakery", "food", "", "", {"Regular": 375}),
    ("Almond Croissant", "Bakery", "food", "", "", {"Regular": 445}),
    ("Blueberry Muffin", "Bakery", "food", "", "", {"Regular": 365}),
    ("Cinnamon Roll", "Bakery", "food", "", "", {"Regular": 425}),
    ("Banana Bread", "Bakery", "food", "", "", {"Slice": 395}),
    ("Chocolate Chip Cookie", "Bakery", "food", "", "", {"Regular": 299}),
    ("Bagel", "Kitchen", "food", "", "bagel", {"Plain": 325, "Everything": 345}),
    ("Egg Sandwich", "Kitchen", "food", "", "bagel", {"Bacon": 795, "Veggie": 745}),
    ("Avocado Toast", "Kitchen", "food", "", "bagel", {"Regular": 995}),
    ("Granola Bowl", "Kitchen", "food", "", "", {"Regular": 850}),
    ("House Blend Beans", "Retail", "goods", "IMPERIAL_POUND", "", {"By the pound": 1699}),
    ("Single Origin Beans", "Retail", "goods", "", "", {"12 oz": 1895, "2 lb": 4250}),
    ("Harbor Mug", "Retail", "goods", "", "", {"White": 1400, "Blue": 1400}),
)
_SAKURA: tuple[_Row, ...] = (
    ("抹茶ラテ Matcha Latte", "ドリンク", "drink", "", "size", {"R": 580, "L": 680}),
    ("ブレンドコーヒー Blend Coffee", "ドリンク", "drink", "", "size", {"R": 450, "L": 550}),
    ("アイスコーヒー Iced Coffee", "ドリンク", "drink", "", "size", {"R": 480, "L": 580}),
    ("カフェラテ Café Latte", "ドリンク", "drink", "", "size", {"R": 520, "L": 620}),
    ("ほうじ茶 Hojicha", "ドリンク", "drink", "", "", {"R": 420}),
    ("煎茶 Sencha", "ドリンク", "drink", "", "", {"R": 420}),
    ("ゆずソーダ Yuzu Soda", "ドリンク", "drink", "", "", {"R": 560}),
    ("クリームソーダ Cream Soda", "ドリンク", "drink", "", "", {"R": 680}),
    ("どら焼き Dorayaki", "和菓子", "food", "", "", {"粒あん": 260, "栗": 320}),
    ("大福 Daifuku", "和菓子", "food", "", "", {"豆": 240, "苺": 380}),
    ("桜餅 Sakura Mochi", "和菓子", "food", "", "", {"R": 290}),
    ("みたらし団子 Dango", "和菓子", "food", "", "", {"R": 200}),
    ("羊羹 Yokan", "和菓子", "food", "", "", {"R": 350}),
    ("わらび餅 Warabi Mochi", "和菓子", "food", "", "", {"R": 540}),
    ("抹茶パフェ Matcha Parfait", "デザート", "food", "", "", {"R": 1180}),
    ("チーズケーキ Cheesecake", "デザート", "food", "", "", {"R": 620}),
    ("シフォンケーキ Chiffon Cake", "デザート", "food", "", "", {"R": 560}),
    ("プリン Custard Pudding", "デザート", "food", "", "", {"R": 480}),
    ("玉子サンド Egg Sando", "食事", "food", "", "", {"R": 780}),
    ("カツサンド Katsu Sando", "食事", "food", "", "", {"R": 1050}),
    ("おにぎりセット Onigiri Set", "食事", "food", "", "", {"鮭": 880, "梅": 850}),
    ("カレーライス Curry Rice", "食事", "food", "", "", {"R": 1100, "大盛": 1300}),
    ("ナポリタン Napolitan", "食事", "food", "", "", {"R": 1080}),
    ("茶葉 Tea Leaves", "物販", "goods", "METRIC_GRAM", "", {"量り売り": 18}),
    ("湯呑み Tea Cup", "物販", "goods", "", "", {"R": 2200}),
)
_FJORD: tuple[_Row, ...] = (
    ("Suodatinkahvi", "Kahvi", "drink", "", "", {"Pieni": 320, "Iso": 390}),
    ("Cappuccino", "Kahvi", "drink", "", "kaura", {"Normaali": 480}),
    ("Latte", "Kahvi", "drink", "", "kaura", {"Normaali": 510}),
    ("Espresso", "Kahvi", "drink", "", "", {"Normaali": 310}),
    ("Kaakao", "Juomat", "drink", "", "kaura", {"Normaali": 460}),
    ("Tee", "Juomat", "drink", "", "", {"Normaali": 340}),
    ("Korvapuusti", "Leivonnaiset", "food", "", "", {"Normaali": 420}),
    ("Karjalanpiirakka", "Leivonnaiset", "food", "", "", {"Normaali": 280, "Munavoilla": 350}),
    ("Runebergintorttu", "Leivonnaiset", "food", "", "", {"Normaali": 450}),
    ("Ruisleipä", "Leivonnaiset", "food", "", "", {"Normaali": 590}),
    ("Mustikkapiirakka", "Leivonnaiset", "food", "", "", {"Pala": 520}),
    ("Porkkanakakku", "Leivonnaiset", "food", "", "", {"Pala": 560}),
    ("Lohikeitto", "Keittiö", "food", "", "", {"Pieni": 990, "Iso": 1390}),
    ("Smørrebrød", "Keittiö", "food", "", "", {"Katkarapu": 1150, "Silli": 980}),
    ("Kasvislasagne", "Keittiö", "food", "", "", {"Normaali": 1240}),
    ("Puuro", "Keittiö", "food", "", "", {"Normaali": 490}),
    ("Savulohi", "Tiski", "food", "METRIC_KILOGRAM", "", {"Irto": 3490}),
    ("Juusto", "Tiski", "food", "METRIC_KILOGRAM", "", {"Irto": 2190}),
    ("Olut", "Baari", "goods", "", "", {"0,33 l": 690, "0,5 l": 890}),
    ("Siideri", "Baari", "goods", "", "", {"0,33 l": 720}),
    ("Valkoviini", "Baari", "goods", "", "", {"12 cl": 950}),
    ("Limonadi", "Juomat", "drink", "", "", {"0,33 l": 390}),
    ("Vissy", "Juomat", "drink", "", "", {"0,33 l": 330}),
    ("Kahvipaketti", "Kauppa", "goods", "", "", {"250 g": 890}),
    ("Muki", "Kauppa", "goods", "", "", {"Sininen": 1650}),
)
_MODIFIERS: dict[str, dict[str, int]] = {
    "milk": {"Oat Milk": 80, "Almond Milk": 80, "Extra Shot": 100, "Vanilla Syrup": 65, "No Foam": 0},
    "shot": {"Extra Shot": 100, "Honey": 50},
    "bagel": {"Extra Cheese": 125, "Bacon": 195, "Tomato": 75, "Toasted": 0},
    "size": {"豆乳 Soy Milk": 50, "黒蜜 Kuromitsu": 70, "氷少なめ Less Ice": 0},
    "kaura": {"Kauramaito": 60, "Siirappi": 70},
    "": {},
}

# name, zone, city, region, postal code, orders a day, opens at, hours open
_HARBOR_STORES = (
    ("Battery Park", "America/New_York", "New York", "NY", "10004", 46, 6, 14.0),
    ("Brooklyn Heights", "America/New_York", "Brooklyn", "NY", "11201", 42, 7, 13.0),
    ("JFK Terminal 4", "America/New_York", "Queens", "NY", "11430", 50, 0, 24.0),
    ("Back Bay", "America/New_York", "Boston", "MA", "02116", 38, 7, 13.0),
    ("Inner Harbor", "America/New_York", "Baltimore", "MD", "21202", 34, 7, 12.0),
    ("Navy Pier", "America/Chicago", "Chicago", "IL", "60611", 48, 7, 14.0),
    ("Wicker Park Late Bar", "America/Chicago", "Chicago", "IL", "60622", 40, 15, 11.0),
    ("Warehouse District", "America/Chicago", "New Orleans", "LA", "70130", 36, 7, 13.0),
    ("Ferry Building", "America/Los_Angeles", "San Francisco", "CA", "94111", 50, 6, 13.0),
    ("Pike Place", "America/Los_Angeles", "Seattle", "WA", "98101", 48, 6, 13.0),
    ("San Pedro", "America/Los_Angeles", "Los Angeles", "CA", "90731", 32, 7, 12.0),
    ("Old Wharf", "America/Los_Angeles", "Monterey", "CA", "93940", 30, 8, 9.0),
)
_SALES_TAX = {"NY": 88750, "MA": 62500, "MD": 60000, "IL": 102500, "LA": 94500, "CA": 86250, "WA": 103500}


def _catalogue(seed: int, handle: str, rows: tuple[_Row, ...]) -> list[Item]:
    items = []
    for name, category, tax_class, unit, group, variations in rows:
        modifiers = tuple(
            Modifier(code(seed, handle, "modifier", group, text), text, price)
            for text, price in _MODIFIERS[group].items()
        )
        for variation, price in variations.items():
            id_ = code(seed, handle, "variation", name, variation)
            sku, upc = CODES[handle].get((name, variation), ("", ""))
            items.append(
                Item(
                    id_,
                    name,
                    variation,
                    category,
                    price,
                    tax_class,
                    unit,
                    modifiers,
                    product_id=code(seed, handle, "item", name),
                    sku=sku,
                    upc=upc,
                    tracked=category in _COUNTED and not unit,
                    updated=changed(seed, handle, name),
                )
            )
    return items


def _harbor(seed: int) -> Merchant:
    merchant = Merchant(
        "ML" + code(seed, "harbor", length=11),
        "harbor",
        "Harbor Coffee",
        "USD",
        "US",
        "en-US",
        provider=_PROVIDER,
        counter=_COUNTER,
        untold=("refund_tips", "seconds_of_work"),
    )
    merchant.items = _catalogue(seed, "harbor", _HARBOR)
    for name, zone, city, region, postal, busy, opens, hours in _HARBOR_STORES:
        state = _SALES_TAX[region]
        if name == "San Pedro":
            # Shelf prices with the tax in them, as some American stands have: the API then deducts it from gross.
            taxes: tuple[Tax, ...] = (tax("Sales Tax (included)", state, _EVERYTHING, inclusive=True),)
        elif region in {"IL", "NY"}:
            taxes = (
                tax("State Sales Tax", state, _EVERYTHING),
                tax("Prepared Food Tax", 5000, _PREPARED),
            )
        else:
            taxes = (tax("Sales Tax", state, _EVERYTHING),)
        merchant.locations.append(
            Location(
                "L" + code(seed, "harbor", name, length=12),
                merchant.id,
                name,
                zone,
                "USD",
                "US",
                city,
                region,
                postal,
                taxes,
                cash_step=5 if region in {"CA", "WA"} else 1,
                active=name != "Old Wharf",
                opens=opens,
                hours=hours,
                busy=busy,
            )
        )
    return merchant


def _sakura(seed: int) -> Merchant:
    merchant = Merchant(
        "ML" + code(seed, "sakura", length=11),
        "sakura",
        "Sakura Teahouse",
        "JPY",
        "JP",
        "ja-JP",
        provider=_PROVIDER,
        counter=_COUNTER,
        untold=("refund_tips", "seconds_of_work"),
    )
    merchant.items = _catalogue(seed, "sakura", _SAKURA)
    merchant.locations.append(
        Location(
            "L" + code(seed, "sakura", "Yanaka", length=12),
            merchant.id,
            "谷中 Yanaka",
            "Asia/Tokyo",
            "JPY",
            "JP",
            "台東区",
            "東京都",
            "110-0001",
            (
                tax("消費税", 100_000, {"drink", "goods"}, inclusive=True),
                tax("消費税（軽減）", 80_000, {"food"}, inclusive=True),
            ),
            opens=9,
            hours=12.0,
            busy=44,
        )
    )
    return merchant


def _fjord(seed: int) -> Merchant:
    merchant = Merchant(
        "ML" + code(seed, "fjord", length=11),
        "fjord",
        "Fjord Kahvila",
        "EUR",
        "FI",
        "fi-FI",
        provider=_PROVIDER,
        counter=_COUNTER,
        untold=("refund_tips", "seconds_of_work"),
    )
    merchant.items = _catalogue(seed, "fjord", _FJORD)
    merchant.locations.append(
        Location(
            "L" + code(seed, "fjord", "Katajanokka", length=12),
            merchant.id,
            "Katajanokka",
            "Europe/Helsinki",
            "EUR",
            "FI",
            "Helsinki",
            "Uusimaa",
            "00160",
            (
                tax("ALV 13,5 %", 135_000, _PREPARED, inclusive=True),
                tax("ALV 25,5 %", 255_000, {"goods"}, inclusive=True),
            ),
            cash_step=5,
            opens=7,
            hours=14.0,
            busy=34,
        )
    )
    return merchant


def businesses(seed: int) -> list[Merchant]:
    """Return the merchants of the seeded world, with their people and without any history."""
    merchants = [_harbor(seed), _sakura(seed), _fjord(seed)]
    for merchant in merchants:
        merchant.tenant = merchant.handle
    merchants += [kitchen(seed), *shops(seed)]
    for merchant in merchants:
        settle(seed, merchant)
        merchant.published = max(item.updated for item in merchant.items)
    return merchants
