"""A restaurant's configuration as `config/v2` lists it: a page at a time, by a token in a header.

A list that was published again between two of its pages answers 409: whoever pages begins anew, without a token. Flux asks for the
alternate payment types; what is configured beside them has GUIDs in orders and menus (`order_context.configured`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flux_sandbox.ids import token
from flux_sandbox.toast.errors import invalid, republished
from flux_sandbox.toast.order_context import configured

if TYPE_CHECKING:
    from flux_sandbox.model import Merchant
    from flux_sandbox.world import World

Json = dict[str, Any]

#: The page size is the server's, and smaller than any list, so that every client has to page.
PER_PAGE = 2
NEXT = "Toast-Next-Page-Token"
_PAYMENT_TYPES = ("Voucher", "Meal plan", "Invoice")


class Configuration:
    """The configuration of every restaurant."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._published: dict[str, int] = {}  # by merchant id: how often
        self._tokens: dict[str, tuple[str, int, int]] = {}  # token -> merchant, publishing, position

    def publish(self, merchant: Merchant) -> int:
        """Publish a merchant's configuration again: page tokens given out before are dead."""
        self._published[merchant.id] = self._published.get(merchant.id, 0) + 1
        return self._published[merchant.id]

    def payment_types(self, merchant: Merchant, query: Mapping[str, str]) -> tuple[list[Json], dict[str, str]]:
        """Answer `GET /config/v2/alternatePaymentTypes`: one page, and the header that leads to the next.

        Raises:
            ApiError: 400 for a bad token, 409 after a publishing.

        """
        times, first = self._published.get(merchant.id, 0), 0
        if page := query.get("pageToken"):
            known = self._tokens.get(page)
            if known is None or known[0] != merchant.id:
                raise invalid("Invalid pageToken")
            if known[1] != times:
                raise republished()
            first = known[2]
        shown = [
            {
                "guid": configured(merchant, "alternate payment", name),
                "entityType": "AlternatePaymentType",
                "externalId": None,
                "name": name,
            }
            for name in _PAYMENT_TYPES[first : first + PER_PAGE]
        ]
        if first + PER_PAGE >= len(_PAYMENT_TYPES):
            return shown, {}
        following = token("toast config", merchant.id, times, first + PER_PAGE)
        self._tokens[following] = (merchant.id, times, first + PER_PAGE)
        return shown, {NEXT: following}
