"""Everything that a merchant of the seeded world has ever sold, by how it trades."""

from __future__ import annotations

from datetime import date

from flux_sandbox.history import StoreHistory, end_of, store_days
from flux_sandbox.history_kept import RestaurantHistory, ShopHistory
from flux_sandbox.model import Merchant, Sale

_HISTORIES = {"counter": StoreHistory, "restaurant": RestaurantHistory, "shop": ShopHistory}


def history(seed: int, merchant: Merchant, end_day: date, days: int) -> list[Sale]:
    """Return everything the merchant rang up in the `days` business days that end with `end_day`."""
    sales: list[Sale] = []
    for location in merchant.locations:
        store = _HISTORIES[merchant.trade](seed, merchant, location)
        for day in store_days(store, end_day, days, end_of(location, end_day)):
            sales += day
    return sales
