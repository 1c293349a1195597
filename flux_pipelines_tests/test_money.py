from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_pipelines.domain.errors import UnknownCurrencyError
from flux_pipelines.domain.money import exponent, from_minor, known_currencies, to_minor


@pytest.mark.parametrize(("code", "places"), [("USD", 2), ("JPY", 0), ("BHD", 3), ("CLF", 4)])
def test_exponents_are_those_of_iso_4217(code: str, places: int) -> None:
    assert exponent(code) == places


@pytest.mark.parametrize("code", ["XAU", "ZZZ", "usd", ""])
def test_a_code_without_minor_unit_is_refused(code: str) -> None:
    with pytest.raises(UnknownCurrencyError, match="ISO 4217"):
        exponent(code)


@given(st.integers(-(10**14), 10**14), st.sampled_from(sorted(known_currencies())))
def test_minor_units_round_trip(amount: int, code: str) -> None:
    assert to_minor(from_minor(amount, code), code) == amount


def test_more_places_than_the_currency_has_is_refused() -> None:
    with pytest.raises(ValueError, match="JPY"):
        to_minor(Decimal("1.5"), "JPY")
