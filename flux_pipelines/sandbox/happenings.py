"""What has just happened in the world, as its listeners are told: every provider announces it in its own words."""

from __future__ import annotations

from typing import Literal, NamedTuple

from flux_pipelines.sandbox.model import Location, Merchant, Sale

Kind = Literal["sold", "edited", "paid", "cancelled", "refunded", "location_opened", "location_changed"]


class Happening(NamedTuple):
    """A change of the world, already made."""

    kind: Kind
    merchant: Merchant
    location: Location
    sale: Sale | None = None
    amounts: bool = False  # of an edit: what was paid changed too
    late: bool = False  # of a sale: rung up offline, it arrives after the fact
