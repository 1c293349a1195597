from __future__ import annotations

import random
from decimal import Decimal

from flux_pipelines.mapping.matching import Key, Thing, suggest

SQUARE, TOAST, SHOP = "square:cafe", "toast:kitchen", "shopify:shop"


def thing(connection: str, name: str, *, upc: str = "", sku: str = "", place: str = "") -> Thing:
    return Thing(Key(connection, name.lower()), name, upc, sku, place)


def suggested(
    *things: Thing, decided: dict[Key, str] | None = None, refused: dict[Key, set[str]] | None = None
) -> dict[tuple[str, str], tuple[str, Decimal, str]]:
    found = suggest(things, decided or {}, {key: frozenset(names) for key, names in (refused or {}).items()})
    return {(key.connection, key.id): (seen.name, seen.score, seen.reason) for key, seen in found.items()}


def test_a_bar_code_is_surer_than_a_sku_and_a_sku_than_a_name() -> None:
    found = suggested(
        thing(SHOP, "Harbor Mug, White", upc="0012345678905", sku="MUG-W"),
        thing(SQUARE, "Mug (white)", upc="12345678905"),
        thing(TOAST, "Enamel cup", sku="mug w"),
    )
    assert found[SQUARE, "mug (white)"] == ("Harbor Mug, White", Decimal("1"), "the same upc 0012345678905")
    assert found[TOAST, "enamel cup"][:2] == ("Harbor Mug, White", Decimal("0.95"))
    alike = suggested(thing(SQUARE, "Latte Large"), thing(TOAST, "Large Latte"))
    assert alike[TOAST, "large latte"][:2] == ("Latte Large", Decimal("0.9"))


def test_things_that_are_not_alike_and_things_of_one_connection_are_not_the_same() -> None:
    assert suggested(thing(SQUARE, "Espresso"), thing(TOAST, "Ramen")) == {}
    assert suggested(thing(SQUARE, "Latte"), thing(SQUARE, "Latte ")) == {}


def test_a_code_that_a_connection_uses_twice_says_nothing() -> None:
    found = suggested(
        thing(SQUARE, "Tea", sku="X1"), thing(SQUARE, "Cake", sku="X1"), thing(TOAST, "Sandwich", sku="X1")
    )
    assert found == {}


def test_different_bar_codes_outweigh_equal_names() -> None:
    assert suggested(thing(SQUARE, "Beans 1 lb", upc="111"), thing(SHOP, "Beans 1 lb", upc="222")) == {}


def test_a_name_that_people_gave_is_suggested_for_its_likes_and_never_overruled() -> None:
    one, two, three = thing(SQUARE, "Latte"), thing(TOAST, "Caffè Latte", sku="L"), thing(SHOP, "Latte", sku="L")
    found = suggested(one, two, three, decided={two.key: "House latte"})
    assert (TOAST, "caffè latte") not in found
    assert found[SHOP, "latte"][0] == "House latte"
    # Two that people call differently are never put together, however alike.
    apart = suggested(one, three, decided={one.key: "Cafe latte", three.key: "Canned latte"})
    assert apart == {}


def test_what_people_refused_is_not_suggested_again() -> None:
    one, two = thing(SQUARE, "Latte"), thing(TOAST, "Latte")
    assert suggested(one, two)[TOAST, "latte"][0] == "Latte"
    assert suggested(one, two, refused={two.key: {"Latte"}}) == {}


def test_stores_in_different_time_zones_are_different_stores() -> None:
    new_york, chicago = "America/New_York", "America/Chicago"
    assert suggested(thing(SQUARE, "Main Street", place=new_york), thing(TOAST, "Main Street", place=chicago)) == {}
    assert suggested(thing(SQUARE, "Main Street", place=new_york), thing(TOAST, "Main Street", place=new_york))


def test_a_group_has_one_member_of_a_connection_and_one_name_in_whatever_order_things_come() -> None:
    chance = random.Random(3)
    words = ["latte", "mocha", "tea", "large", "small", "oat", "iced", "bagel"]
    things = [
        Thing(Key(connection, str(number)), " ".join(chance.sample(words, 3)), sku=f"S{chance.randrange(12)}")
        for connection in (SQUARE, TOAST, SHOP)
        for number in range(15)
    ]
    first = suggest(things, {}, {})
    assert first
    for _ in range(5):
        chance.shuffle(things)
        assert suggest(things, {}, {}) == first
    by_name: dict[str, list[str]] = {}
    names = {thing.key: thing.name for thing in things}
    for key, seen in first.items():
        assert Decimal(0) < seen.score <= 1
        by_name.setdefault(seen.name, []).append(key.connection)
    assert set(by_name) <= set(names.values())
