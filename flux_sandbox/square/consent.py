"""Square's authorisation page: what an app may ask for, and the page on which a person answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode, urlsplit

from flux_sandbox.options import CLIENT_ID
from flux_sandbox.pages import Choice, consent_page
from flux_sandbox.square.errors import ApiError, invalid

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams
    from starlette.responses import Response

    from flux_sandbox.model import Merchant

#: Every permission, and what the person who is asked for it reads.
SCOPES = {
    "CUSTOMERS_READ": "See your customers",
    "EMPLOYEES_READ": "See your team",
    "INVENTORY_READ": "See your inventory",
    "ITEMS_READ": "See your catalogue",
    "MERCHANT_PROFILE_READ": "See your business and its locations",
    "ORDERS_READ": "See your orders",
    "PAYMENTS_READ": "See your payments and refunds",
    "REPORTING_READ": "See your sales reports",
    "TIMECARDS_READ": "See your team's timecards",
}


class Consent(NamedTuple):
    """What a person is asked to agree to, and where the answer goes."""

    redirect: str
    scopes: frozenset[str]
    state: Mapping[str, str]

    def answer(self, **values: str) -> str:
        """Return the address that carries an answer back."""
        joint = "&" if urlsplit(self.redirect).query else "?"
        return f"{self.redirect}{joint}{urlencode({**values, **self.state})}"


def consent_of(query: Mapping[str, str]) -> Consent:
    """Return what a request to the authorisation page asks for.

    Raises:
        ApiError: the request is not one that a page could be shown for.

    """
    if query.get("client_id") != CLIENT_ID:
        raise ApiError(400, "BAD_REQUEST", "Unable to find client by that `client_id`.", "client_id")
    redirect = query.get("redirect_uri") or ""
    parts = urlsplit(redirect)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.fragment:
        raise invalid("INVALID_VALUE", "The `redirect_uri` is not the one registered.", "redirect_uri")
    scopes = frozenset(query.get("scope", "").split())
    if not scopes or not scopes <= SCOPES.keys():
        unknown = ", ".join(sorted(scopes - SCOPES.keys())) or "none given"
        raise invalid("INVALID_VALUE", f"Invalid scope: {unknown}.", "scope")
    return Consent(redirect, scopes, {"state": query["state"]} if query.get("state") else {})


def answered(query: Mapping[str, str]) -> bool:
    """Tell whether a request carries a person's answer, which the page's buttons add to it."""
    return "merchant" in query or query.get("deny") == "1"


def page(
    query: QueryParams, merchants: Collection[Merchant], chosen: Merchant, authorised: Collection[str]
) -> Response:
    """Show the page on which a person chooses an account and answers.

    Raises:
        ApiError: the request is not one that a page could be shown for.

    """
    consent = consent_of(query)
    accounts = [
        Choice(
            merchant.id,
            merchant.name,
            f"{_count(len(merchant.locations), 'location')} · {merchant.currency}",
            "authorised before" if merchant.id in authorised else "",
        )
        for merchant in merchants
    ]
    return consent_page(
        "Square",
        query.multi_items(),
        accounts=accounts,
        chosen=chosen.id,
        permissions=[(scope, SCOPES[scope]) for scope in sorted(consent.scopes)],
        goes_to=urlsplit(consent.redirect).netloc,
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
