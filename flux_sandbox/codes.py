"""Stock keeping units and bar codes of the seeded goods: what tells that two providers' products are the same.

Within a tenant some products carry the same code at several providers, some only a similar name, and some are nowhere
else: a mapping has to live with all three.
"""

from __future__ import annotations

from collections.abc import Mapping


def bar_code(digits: str) -> str:
    """Return a UPC-A (11 digits given) or EAN-13 (12) with its check digit."""
    weighted = sum(int(digit) * (3 if position % 2 == 0 else 1) for position, digit in enumerate(reversed(digits)))
    return f"{digits}{-weighted % 10}"


_SO_12 = bar_code("85001234001")
_SO_32 = bar_code("85001234002")
_MUG_WHITE = bar_code("85001234003")
_COOKIE = bar_code("85001234005")
_COFFEE = bar_code("643001234501")
_CUP = bar_code("643001234502")

#: By merchant, then by (item, variation): SKU and bar code, either may be empty.
CODES: Mapping[str, Mapping[tuple[str, str], tuple[str, str]]] = {
    "harbor": {
        ("Single Origin Beans", "12 oz"): ("HB-SO-12", _SO_12),
        ("Single Origin Beans", "2 lb"): ("HB-SO-32", _SO_32),
        ("Harbor Mug", "White"): ("HB-MUG-W", _MUG_WHITE),
        ("Harbor Mug", "Blue"): ("HB-MUG-B", ""),
        ("House Blend Beans", "By the pound"): ("HB-HOUSE-LB", ""),
        ("Chocolate Chip Cookie", "Regular"): ("HB-COOKIE", _COOKIE),
        ("Butter Croissant", "Regular"): ("HB-CROISSANT", ""),
        ("Orange Juice", "Regular"): ("HB-OJ", ""),
    },
    "harbor-kitchen": {
        ("Single Origin Beans Bag", ""): ("", _SO_12),  # the bar code alone
        ("Chocolate Chip Cookie", ""): ("HB-COOKIE", ""),  # the SKU alone
        ("Fresh Orange Juice", ""): ("HB-OJ", ""),  # the same SKU, another name
    },
    "harbor-shop": {
        ("Single Origin Coffee", "12 oz"): ("HB-SO-12", _SO_12),
        ("Single Origin Coffee", "2 lb"): ("HB-SO-32", ""),
        ("Harbor Mug", "White"): ("", _MUG_WHITE),
        ("Harbor Mug", "Blue"): ("", ""),  # the name alone
        ("Harbor Tote", ""): ("HB-TOTE", bar_code("85001234006")),
        ("Pour Over Kit", ""): ("HB-POUROVER", ""),
    },
    "fjord": {
        ("Kahvipaketti", "250 g"): ("FK-KAHVI-250", _COFFEE),
        ("Muki", "Sininen"): ("FK-MUKI-S", _CUP),
    },
    "fjord-shop": {
        ("Kahvipaketti", "250 g"): ("FK-KAHVI-250", _COFFEE),
        ("Kahvipaketti", "500 g"): ("FK-KAHVI-500", ""),
        ("Muki", "Sininen"): ("", _CUP),
        ("Muki", "Valkoinen"): ("FK-MUKI-V", ""),
    },
    "sakura": {("湯呑み Tea Cup", "R"): ("SK-YUNOMI", bar_code("450012345003"))},
}
