"""The name of a shop and the address that follows from it: always a host under myshopify.com."""

from __future__ import annotations

import re

from flux_pipelines.domain.errors import ConfigurationError

#: Shopify's own check of a shop (`shopify-api` for JavaScript, `sanitizeShop`); anything else may be an attacker's host.
_DOMAIN = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9-]*\.myshopify\.com")
_SUFFIX = ".myshopify.com"
_PLACE = "{shop}"


def is_domain(text: str) -> bool:
    """Tell whether a text is a shop's own domain: `acme.myshopify.com`."""
    return _DOMAIN.fullmatch(text) is not None


def domain(shop: str, *, connection: str | None = None) -> str:
    """Return the domain of a shop that is named `acme`, `acme.myshopify.com` or by its address.

    Raises:
        ConfigurationError: the text names no shop.

    """
    text = shop.strip().lower().removeprefix("https://").rstrip("/")
    found = text if text.endswith(_SUFFIX) else text + _SUFFIX
    if not is_domain(found):
        raise ConfigurationError(
            "`shop` is not the name of a Shopify shop",
            connection=connection,
            next_step="Give the name before .myshopify.com: `acme` of acme.myshopify.com.",
        )
    return found


def address(base_url: str, shop: str, *, connection: str | None = None) -> str:
    """Return where a shop's API answers.

    Args:
        base_url: an address, or one with `{shop}` in the place of the shop's name.
        shop: the shop, in any of its forms; only used where the address asks for it.
        connection: named in errors.

    Raises:
        ConfigurationError: the address asks for a shop, and none is given or it is not one.

    """
    if _PLACE not in base_url:
        return base_url
    return base_url.replace(_PLACE, domain(shop, connection=connection).removesuffix(_SUFFIX))
