"""The lake of a home beside what really happened, table by table, to the last minor unit.

The sandbox tells the truth by its own endpoints, so that it may be a process of its own. A comparison gives sentences: what
a table says and what is true, where the two differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import httpx

from flux_pipelines.domain.business_day import BusinessCalendar
from flux_pipelines.domain.money import from_minor
from flux_sandbox.model import Quirk

Ask = Callable[[str], list[tuple[Any, ...]]]
Row = dict[str, Any]

_SHOWN = 4
_EVERYTHING = 10**9
_TENDERS = {"CASH": "cash", "CARD": "card", "WALLET": "card", "REFUND": "refund", "OTHER": "other"}
_GIFT_CARDS = ("SQUARE_GIFT_CARD", "GIFT_CARD")


def tender_of(type_: str) -> str:
    """Return what our tables call a tender of the world."""
    return "gift_card" if type_ in _GIFT_CARDS else _TENDERS.get(type_, "other")


@dataclass
class Findings:
    """How many rows of each table were compared, and what was found to be wrong."""

    compared: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def compare(self, table: str, whose: str, found: Mapping[Any, Any], true: Mapping[Any, Any]) -> None:
        """Compare what a table says with what is true, by the same keys."""
        self.compared[table] += len(true)
        apart = [key for key in {**found, **true} if found.get(key) != true.get(key)]
        self.wrong += [
            f"{table} of {whose}: {key} is {found.get(key, 'not there')}, in truth {true.get(key, 'not there')}"
            for key in sorted(apart, key=str)[:_SHOWN]
        ]
        if len(apart) > _SHOWN:
            self.wrong.append(f"{table} of {whose}: {len(apart) - _SHOWN} more of {len(true)} are wrong")


class Merchant:
    """One merchant of a sandbox, as the sandbox tells of it.

    Args:
        url: the sandbox.
        handle: the merchant.
        first: the first business date that is asked for.
        last: the last one, included.

    """

    def __init__(self, url: str, handle: str, first: date, last: date) -> None:
        self._client = httpx.Client(base_url=f"{url}/sandbox", timeout=600)
        self.handle, self.first, self.last = handle, first, last
        (told,) = [one for one in self._get("merchants")["merchants"] if one["handle"] == handle]
        self.told: Row = told
        self.currency: str = told["currency"]
        self.key = f"{told['provider']}:{handle}"
        self.provider: str = told["provider"]
        self._currencies = {place["id"]: str(place["currency"]) for place in told["locations"]}
        self._calendars = {
            place["id"]: BusinessCalendar(place["timezone"], told["cutoff_hour"]) for place in told["locations"]
        }

    def __enter__(self) -> Merchant:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def _get(self, what: str, **query: Any) -> Row:
        answer = self._client.get(f"/{what}", params=query).raise_for_status()
        found: Row = answer.json()
        return found

    def true(self, what: str) -> Row:
        """Ask for a part of the truth about the merchant's business dates."""
        dates = {"from": str(self.first), "to": str(self.last)} if what in ("", "/payments", "/labor") else {}
        return self._get(f"truth{what}", merchant=self.handle, **dates)

    def orders(self) -> list[Row]:
        """List the merchant's orders of all times.

        Each has `day`, the date it was made on, and `sold_on`, the date on which it counts: None for one that is no sale.
        As the merchant's own report counts them: once they are paid in full, on the date of the final payment; or when they are
        made, cancelled ones too if all that is placed counts.
        """
        counts_when = self.told["counts_when"]
        found = self._get("orders", merchant=self.handle, limit=_EVERYTHING)["orders"]
        for one in found:
            one["day"] = self._date(one, one["created_ms"])
            counted = self._date(one, one["paid_ms"]) if counts_when == "paid" else one["day"]
            cancelled = one["state"] == "CANCELED" and counts_when != "placed"
            one["sold_on"] = None if cancelled else counted
        return list(found)

    def _date(self, order: Row, at: int | None) -> date | None:
        calendar = self._calendars[order["location_id"]]
        return None if at is None else calendar.date_of(datetime.fromtimestamp(at / 1000, UTC))

    def untold(self, what: Quirk) -> bool:
        """Whether the provider does not tell something, so that no table can have it."""
        return what in self.told["untold"]

    def money(self, minor: int, location_id: str = "") -> Decimal:
        """Return an amount of a location, or of the merchant as a whole."""
        return from_minor(minor, self._currencies.get(location_id, self.currency))

    @property
    def mine(self) -> str:
        """The condition on rows of the lake that are of this merchant and these business dates."""
        return f"connection = '{self.key}' and business_date between '{self.first}' and '{self.last}'"
