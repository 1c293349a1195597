"""Shopify's ids, amounts and instants as its API writes them, made from the world's."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

Json = dict[str, Any]

_GID = re.compile(r"^gid://shopify/([A-Za-z]+)/(\d+)(\?.*)?$")
#: Currencies of the world whose smallest unit is not a hundredth.
_EXPONENTS = {"JPY": 0, "KRW": 0, "ISK": 0, "KWD": 3, "BHD": 3}


@lru_cache(maxsize=65_536)
def legacy(kind: str, world_id: str) -> int:
    """Return the number that an object of the world has at Shopify: its own digits, or ones made from its id."""
    if world_id.isdigit():
        return int(world_id)
    digest = hashlib.blake2b(f"{kind}|{world_id}".encode(), digest_size=8).digest()
    return 1_000_000_000_000 + int.from_bytes(digest) % 8_000_000_000_000


def gid(kind: str, number: int) -> str:
    """Return a global id."""
    return f"gid://shopify/{kind}/{number}"


def read_gid(text: str) -> tuple[str, int] | None:
    """Return the kind and the number of a global id, or None: it is not one."""
    found = _GID.match(text)
    return (found[1], int(found[2])) if found else None


def exponent(currency: str) -> int:
    """Return how many decimals a currency's minor units have."""
    return _EXPONENTS.get(currency, 2)


def decimal(amount: int, currency: str) -> str:
    """Return minor units as the GraphQL API writes them: one decimal at least and no more zeros than that."""
    if not exponent(currency):
        return f"{amount}.0"
    text = plain(amount, currency)
    return text[:-1] if text[-1] == "0" and text[-2] != "." else text


def plain(amount: int, currency: str) -> str:
    """Return minor units as the REST payloads write them: with every decimal of the currency."""
    places = exponent(currency)
    if places == 2 and amount >= 0:
        return f"{amount // 100}.{amount % 100:02d}"
    sign, amount = ("-", -amount) if amount < 0 else ("", amount)
    if not places:
        return f"{sign}{amount}"
    whole, part = divmod(amount, 10**places)
    return f"{sign}{whole}.{part:0{places}d}"


def stamp(ms: int) -> str:
    """Return an instant (UTC milliseconds) as the GraphQL API writes it: whole seconds, rounded down."""
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Money:
    """Writes amounts of one order: in the shop's currency and in the one that the buyer saw.

    Args:
        currency: the shop's.
        presentment: the buyer's currency, and how many millionths of it one of the shop's is; None: the shop's own.

    """

    def __init__(self, currency: str, presentment: tuple[str, int] | None) -> None:
        self.currency = currency
        self.shown, self._rate = presentment or (currency, 1_000_000)
        self._scale = exponent(self.shown) - exponent(currency)
        self._same = self.shown == currency
        self._bags: dict[int, Json] = {}

    def of(self, amount: int) -> Json:
        """Return a MoneyV2 in the shop's currency."""
        return {"amount": decimal(amount, self.currency), "currencyCode": self.currency}

    def shown_to_buyer(self, amount: int) -> int:
        """Return minor units of the shop's currency in the buyer's, rounded half up."""
        if self._same:
            return amount
        scaled: int = abs(amount) * self._rate * 10 ** max(0, self._scale)
        divisor: int = 1_000_000 * 10 ** max(0, -self._scale)
        rounded = (2 * scaled + divisor) // (2 * divisor)
        return rounded if amount >= 0 else -rounded

    def bag(self, amount: int) -> Json:
        """Return a MoneyBag; one and the same for the same amount."""
        found = self._bags.get(amount)
        if found is None:
            found = self._bags[amount] = self._bag(amount)
        return found

    def _bag(self, amount: int) -> Json:
        shop = self.of(amount)
        if self._same:
            return {"shopMoney": shop, "presentmentMoney": shop}
        shown = {"amount": decimal(self.shown_to_buyer(amount), self.shown), "currencyCode": self.shown}
        return {"shopMoney": shop, "presentmentMoney": shown}
