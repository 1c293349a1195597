from __future__ import annotations

from dataclasses import replace

import pytest

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.providers.apps import address_of
from flux_pipelines.providers.base import Setting
from flux_pipelines.providers.square import PROVIDER

SHOP = replace(PROVIDER, connect_settings=(Setting("shop", "", "Say the shop's name, such as acme."),))
TEMPLATE = "https://{shop}.myshopify.com"


@pytest.mark.parametrize("said", ["acme", " ACME ", "acme.myshopify.com", "https://acme.myshopify.com/"])
def test_an_address_is_filled_in_with_what_a_person_says(said: str) -> None:
    assert address_of(SHOP, TEMPLATE, {"shop": said}) == "https://acme.myshopify.com"
    assert address_of(SHOP, "http://127.0.0.1:1/shops/{shop}", {"shop": "acme"}) == "http://127.0.0.1:1/shops/acme"


def test_an_address_without_a_place_for_it_stays_as_it_is() -> None:
    assert address_of(SHOP, "https://connect.squareup.com", {}) == "https://connect.squareup.com"
    assert address_of(PROVIDER, PROVIDER.base_url, {"shop": "acme"}) == PROVIDER.base_url


@pytest.mark.parametrize(
    "said",
    ["", "evil.example", "evil.example/.myshopify.com", "a@b", "acme.myshopify.com.evil.example", "acme#", "acme?x=",
     "acme/../x", "-acme", "acme-", "a" * 64, "acme\n", "ácme", "acme:8080", "{shop}"],
)  # fmt: skip
def test_nothing_but_a_part_of_a_hosts_name_is_taken(said: str) -> None:
    wanted = "acme" if said == "acme\n" else None  # white space around an answer does no harm
    if wanted:
        assert address_of(SHOP, TEMPLATE, {"shop": said}) == "https://acme.myshopify.com"
        return
    with pytest.raises(ConfigurationError, match="Say the shop's name"):
        address_of(SHOP, TEMPLATE, {"shop": said})
