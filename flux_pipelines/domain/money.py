"""Exact money: integer minor units in, Decimal out. Exponents come from ISO 4217, never from a constant 100."""

from __future__ import annotations

from decimal import Decimal
from functools import cache

from flux_pipelines.domain.errors import UnknownCurrencyError


@cache
def exponent(currency: str) -> int:
    """Return the number of decimal places of a currency: 2 for USD, 0 for JPY, 3 for BHD.

    Raises:
        UnknownCurrencyError: the code is not in ISO 4217, or the currency has no minor unit (such as XAU).

    """
    from iso4217 import Currency

    try:
        places = Currency(currency).exponent
    except ValueError:
        places = None
    if places is None:
        raise UnknownCurrencyError(
            f"the currency code {currency!r} is not one that ISO 4217 gives a minor unit",
            next_step="Correct the currency at the provider, or report it if it is new.",
        )
    return int(places)


def from_minor(amount: int, currency: str) -> Decimal:
    """Convert integer minor units to the currency's unit: `from_minor(1234, "USD") == Decimal("12.34")`."""
    return Decimal(amount).scaleb(-exponent(currency))


def to_minor(amount: Decimal, currency: str) -> int:
    """Convert an exact amount to integer minor units.

    Raises:
        ValueError: the amount has more decimal places than the currency.

    """
    minor = amount.scaleb(exponent(currency))
    if minor != minor.to_integral_value():
        raise ValueError(f"{amount} has more decimal places than {currency} allows")
    return int(minor)


@cache
def known_currencies() -> dict[str, int]:
    """Return every ISO 4217 code that has a minor unit, with its exponent (the SQL's `currencies` table)."""
    from iso4217 import Currency

    return {c.code: int(c.exponent) for c in Currency if c.exponent is not None}
