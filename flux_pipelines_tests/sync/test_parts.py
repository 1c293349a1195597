"""Long records are taken apart: nothing of them is lost, and each part knows what it was in."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from flux_pipelines.sync.parts import Part, take_apart

MENU = {
    "menu": {"menus": "one", "options": "option"},
    "one": {"groups": "group"},
    "group": {"items": "item", "groups": "group"},
}
PRODUCT = {"product": {"variants.nodes": "variant"}}


def parts(kind: str, record: Any, apart: Any) -> list[Part]:
    text = record if isinstance(record, bytes) else json.dumps(record, separators=(",", ":")).encode()
    return take_apart(kind, msgspec.Raw(text), apart)


def test_what_is_listed_inside_comes_after_it_as_it_was_sent() -> None:
    product = b'{"id": 1, "variants": {"nodes": [{"price": 1.10}, null, {"a":  "\\u00e9"}], "more": 2}, "z": 1e2}'
    assert parts("product", product, PRODUCT) == [
        Part("product", '{"id":1,"variants":{"more":2},"z":1e2}'),
        Part("variant", '{"price": 1.10}', 0),
        Part("variant", "null", 0),
        Part("variant", '{"a":  "\\u00e9"}', 0),
    ]
    assert parts("other", product, PRODUCT) == [Part("other", product.decode())]
    assert parts("product", product, {"product": {"variants.nodes": "", "z": "z"}}) == [
        Part("product", '{"id":1,"variants":{"more":2},"z":1e2}')
    ], "an empty kind leaves them out"


def test_lists_within_lists_and_maps() -> None:
    inner = {"name": "inner", "items": [{"i": 2}], "groups": []}
    outer = {"name": "outer", "items": [{"i": 1}], "groups": [inner]}
    menu = {"menus": [{"groups": [outer]}, {"groups": None}], "options": {"7": {"o": 7}, "5": {"o": 5}}}
    assert parts("menu", menu, MENU) == [
        Part("menu", "{}"),
        Part("one", "{}", 0),
        Part("group", '{"name":"outer"}', 1),
        Part("item", '{"i":1}', 2),
        Part("group", '{"name":"inner"}', 2),
        Part("item", '{"i":2}', 4),
        Part("one", '{"groups":null}', 0),
        Part("option", '{"o":7}', 0),
        Part("option", '{"o":5}', 0),
    ]


@pytest.mark.parametrize("record", [[], "text", {"variants": 3}, {"variants": {"nodes": "x"}}, {"variants": {}}, {}])
def test_what_does_not_have_the_form_stays_as_it_is(record: Any) -> None:
    ((kind, text, parent),) = parts("product", record, PRODUCT)
    assert (kind, json.loads(text), parent) == ("product", record, None)


def test_groups_as_deep_as_anybody_likes() -> None:
    group: dict[str, Any] = {"items": [{"i": 0}]}
    for depth in range(200):
        group = {"items": [{"i": depth}], "groups": [group]}
    found = parts("group", group, MENU)
    assert [part.kind for part in found].count("item") == 201
