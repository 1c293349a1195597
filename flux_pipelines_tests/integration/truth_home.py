"""A home that is synced from a sandbox and compared with it: whole tables, their fingerprints, and what no file may hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from flux_pipelines.connections import connect_to_sandbox
from flux_pipelines.defs.runner import SyncReport, sync
from flux_pipelines.lake import session
from flux_pipelines.providers.registry import provider as provider_named
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import settings
from flux_pipelines_tests.any_provider import hurried
from flux_pipelines_tests.defs.bare import fingerprints
from flux_pipelines_tests.integration.truths import Ask, Findings, Merchant
from flux_pipelines_tests.integration.truths_sales import sales
from flux_pipelines_tests.integration.truths_streams import goods, labor, payments, stock, stores

#: What is compared for each table that a provider has a part of.
_PARTS = {
    "transactions": sales,
    "payments": payments,
    "products": goods,
    "locations": stores,
    "inventory_levels": stock,
    "time_entries": labor,
}
#: Members that hold a few digits of a card: four digits alone are in many an id.
_CARD_DIGITS = re.compile(rb'"(?:\w*last_?4\w*|bin|card_bin|first6\w*|number)"\s*:\s*"[^"]*\d[^"]*"')
#: What is compared with a provider's report, as far as it has it.
_REPORTED = "net, tax, tips"
_PIECE = 64 * 1024 * 1024


@dataclass
class SyncedHome:
    """A home, the sandbox that it is synced from, and its connections, each with its merchant's business dates."""

    runtime: Runtime
    url: str
    dates: dict[str, list[date]] = field(default_factory=dict)

    def connect(self, handle: str, first: date, last: date, **settings: Any) -> str:
        """Connect a merchant, whose business dates from `first` to `last` are then what is synced and compared; return the key."""
        told = httpx.get(f"{self.url}/sandbox/merchants").json()["merchants"]
        (merchant,) = [one for one in told if one["handle"] == handle]
        key = f"{merchant['provider']}:{handle}"
        connect_to_sandbox(
            self.runtime,
            key,
            tenant=merchant["tenant"],
            url=self.url,
            settings={**hurried(provider_named(merchant["provider"])), **settings},
        )
        self.dates[key] = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        return key

    def sync(self) -> list[SyncReport]:
        """Sync everything: connections of the same dates together."""
        together: dict[tuple[date, ...], list[str]] = {}
        for key, days in self.dates.items():
            together.setdefault(tuple(days), []).append(key)
        return [sync(self.runtime, keys, days) for days, keys in together.items()]

    def lengthen(self, last: date) -> None:
        """Let every connection's dates go on until `last`."""
        for days in self.dates.values():
            days += [days[-1] + timedelta(days=n) for n in range(1, (last - days[-1]).days + 1)]

    def compare(self, *keys: str) -> Findings:
        """Compare every table that their providers have a part of with what the sandbox says is true of some connections, or of all."""
        findings = Findings()
        wanted = {key: days for key, days in self.dates.items() if not keys or key in keys}
        with session(self.runtime.lake) as database:

            def ask(query: str) -> list[tuple[Any, ...]]:
                return database.execute(query).fetchall()

            for key, days in wanted.items():
                tables = {"transactions", *(one.table for one in provider_named(key.partition(":")[0]).tables)}
                with Merchant(self.url, key.partition(":")[2], days[0], days[-1]) as merchant:
                    for table in sorted(tables & _PARTS.keys()):
                        _PARTS[table](findings, merchant, ask)
                if "reported_sales" in tables:
                    reports(findings, key, days, ask)
            quarantined = ask("select connection, asset, reason, count(*) from quarantine group by all")
        bad = {row[:-1]: row[-1] for row in quarantined if row[0] in wanted}
        findings.compare("quarantine", "anybody", bad, {})
        return findings

    def fingerprints(self) -> dict[str, tuple[Any, ...]]:
        """Return a fingerprint of every table: of all of its rows, in no order.

        But for the providers' reports: one that could not be had is asked for again.
        """
        tables = [name for name in self.runtime.lake.tables() if not name.endswith("reported_sales")]
        return fingerprints(self.runtime, [name.replace("/", ".") for name in tables])

    def people(self, *keys: str) -> list[bytes]:
        """Return every name, phone number and street of the merchants' people, in lower case.

        Addresses of mail are made of names, and streets are searched for without their numbers.
        """
        texts: set[str] = set()
        for key in keys or self.dates:
            told = httpx.get(f"{self.url}/sandbox/people", params={"merchant": key.partition(":")[2]}).json()
            assert all(any(name.lower() in mail for name in told["names"]) for mail in told["emails"])
            texts |= {*told["names"], *(phone.removeprefix("+") for phone in told["phones"])}
            texts |= {street.partition(" ")[2] for street in told["streets"]}
        return sorted(text.lower().encode() for text in texts)

    def personal(self, *keys: str) -> tuple[int, list[str]]:
        """Search every file of the home for its merchants' people; return how many bytes were searched, and what was found.

        With `keys`, search for their people in the files of their providers.
        """
        wanted = self.people(*keys)
        folders = {key.partition(":")[0] for key in keys}
        searched, found = 0, []
        seen: set[str] = set()  # tables are written again and again, with most of their texts the same
        for path in sorted(self.runtime.settings.home.rglob("*")):
            if not path.is_file() or (folders and folders.isdisjoint(path.parts)):
                continue
            for piece in _texts(path, seen) if path.suffix == ".parquet" else _contents(path):
                searched += len(piece)
                lower = piece.lower()
                found += [f"{path}: {text.decode()}" for text in wanted if text in lower]
                if card := _CARD_DIGITS.search(lower):
                    found.append(f"{path}: {card[0]!r}")
        return searched, found


def _texts(path: Path, seen: set[str]) -> Iterator[bytes]:
    """Yield the texts of a table's file that are not in `seen` yet, and put them there."""
    new: set[str] = set()
    for batch in pq.ParquetFile(path).iter_batches():
        for column in batch.columns:
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                new.update(text for text in column.unique().to_pylist() if text)
    yield "\n".join(new - seen).encode()
    seen |= new


def _contents(path: Path) -> Iterator[bytes]:
    """Yield what a file says, unpacked, in pieces that overlap by more than any text that is looked for."""
    with path.open("rb") as file:
        packed = path.suffix == ".zst"
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) if packed else file
        kept = b""
        while piece := reader.read(_PIECE):
            yield kept + piece
            kept = piece[-256:]


def reports(findings: Findings, key: str, days: list[date], ask: Ask) -> None:
    """Compare what each store sold with the provider's report of it, which the sandbox adds up by code of its own.

    A date without a witness says nothing, and is counted: failures may leave some.
    """
    where = f"connection = '{key}' and business_date between '{days[0]}' and '{days[-1]}'"
    sold = {
        tuple(row[:2]): row[2:]
        for row in ask(f"select location_id, business_date, {_REPORTED} from daily_sales where {where}")
    }
    told = ask(f"select location_id, business_date, {_REPORTED}, status from reported_sales where {where}")
    here, there = {}, {}
    for place, day, *figures, status in told:
        if status != "reported":
            findings.compared["reported_sales, no witness"] += 1
            continue
        there[place, day] = tuple(figures)
        ours = sold.get((place, day), (Decimal(0),) * len(figures))
        # A figure that a report does not have is none to compare.
        here[place, day] = tuple(
            None if figure is None else amount for amount, figure in zip(ours, figures, strict=True)
        )
    turned = ask(f'select sum(discounts) < 0, sum("returns") > 0 from reported_sales where {where}')
    findings.compare("reported_sales, signs", key, {key: turned}, {key: [(False, False)]})
    asked = {(place, day) for place, day, *_ in told}
    findings.compare("reported_sales", key, here, there)
    findings.compare(
        "reported_sales, asked for", key, dict.fromkeys(sold.keys() & asked, True), dict.fromkeys(sold, True)
    )


@contextmanager
def synced_home(folder: Path, url: str, start: date, forecast_url: str) -> Iterator[SyncedHome]:
    """Open a home of its own in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLUX_HOME", str(folder / "home"))
        patch.setenv("FLUX_START_DATE", start.isoformat())
        patch.setenv("FLUX_FORECAST_URL", forecast_url)
        settings.cache_clear()
        with Runtime() as runtime:
            yield SyncedHome(runtime, url)
    settings.cache_clear()
