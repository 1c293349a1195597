"""What every provider that rings up sales is put through, found by the registry: nothing here names one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from flux_pipelines.connections import connect_to_sandbox
from flux_pipelines.domain.business_day import known_calendars
from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.money import from_minor
from flux_pipelines.lake.raw import OLDER
from flux_pipelines.providers.base import Provider
from flux_pipelines.providers.registry import all_providers
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.normalise import Normalisation
from flux_pipelines.sync.records import BadRecord, DayOutcome
from flux_pipelines.sync.windowed import read_windowed
from flux_pipelines_tests.any_provider import hurried, least_busy
from flux_sandbox.model import Merchant
from flux_sandbox.options import SandboxOptions
from flux_sandbox.registry import simulated
from flux_sandbox.server import RunningSandbox
from flux_sandbox.truth import truth

HISTORY = 6
#: So few that no store's date is on one page, whatever the provider allows.
MOST_A_PAGE = 12


def providers() -> list[str]:
    return [name for name, spec in all_providers().items() if spec.source and name in simulated()]


@pytest.fixture(scope="package")
def sandbox() -> Iterator[RunningSandbox]:
    """One world for all of them, on small pages. It ends yesterday, so that nobody's limit of history matters."""
    options = SandboxOptions(seed=4, history_days=HISTORY, rate_limit=1_000_000, most_a_page=MOST_A_PAGE)
    with RunningSandbox(options) as running:
        yield running


@dataclass
class Played:
    """A provider's merchant of the sandbox, connected in a home of its own."""

    spec: Provider
    sandbox: RunningSandbox
    runtime: Runtime
    merchant: Merchant
    connection: Connection
    bad: list[BadRecord] = field(default_factory=list)

    @property
    def last(self) -> date:
        """The last business date that is over for everybody, at whatever hour this runs: some end hours after midnight."""
        end = self.sandbox.world.end_day
        assert end is not None
        return end - timedelta(days=1)

    @property
    def days(self) -> list[date]:
        return [self.last - timedelta(days=n) for n in reversed(range(HISTORY - 2))]

    def pull(self, what: str, **body: Any) -> dict[str, Any]:
        """Pull one of the sandbox's strings."""
        answer = httpx.post(f"{self.sandbox.url}/sandbox/{what}", json=body)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def of_this_merchant(self, what: str, **body: Any) -> dict[str, Any]:
        return self.pull(what, provider=self.spec.name, merchant=self.merchant.handle, **body)

    def sync(self, days: Sequence[date], **options: Any) -> dict[date, DayOutcome]:
        source = self.runtime.source(self.connection)
        try:
            locations = self.runtime.refresh_locations(self.connection, source)
            context = SyncContext(source, self.connection, locations, self.runtime.raw, self.spec, **options)
            return {outcome.day: outcome for outcome in read_windowed(context, days)}
        finally:
            source.close()

    def landed(self, outcomes: dict[date, DayOutcome]) -> dict[date, tuple[int, str]]:
        """Return how many orders each day holds, and the checksum of its file."""
        found = {}
        for day, outcome in outcomes.items():
            assert outcome.error is None, outcome.error
            assert outcome.manifest is not None
            found[day] = (outcome.manifest.orders, outcome.manifest.sha256)
        return found

    def totals(self, outcomes: dict[date, DayOutcome]) -> dict[tuple[date, str], Decimal]:
        """Return what the rows that count on each day add up to, by currency: older orders' among them."""
        raw, key = self.runtime.raw, self.connection.key
        manifests = [outcome.manifest for outcome in outcomes.values() if outcome.manifest is not None]
        older = [one for one in raw.of(OLDER).everything(key).readable if not raw.landed(key, [one.business_date])]
        calendars = known_calendars(self.runtime.state.locations.list(key), self.connection.cutoff_hour)
        normalised = Normalisation(self.spec, raw, self.connection, [*manifests, *older], calendars)
        sums: dict[tuple[date, str], Decimal] = {}
        for batch in normalised.batches():
            for row in batch.select(["business_date", "currency", "total"]).to_pylist():
                where = row["business_date"], row["currency"]
                sums[where] = sums.get(where, Decimal(0)) + row["total"]
        self.bad = [*(bad for outcome in outcomes.values() for bad in outcome.bad), *normalised.bad]
        return {(day, currency): total for (day, currency), total in sums.items() if total and day in outcomes}

    def true_totals(self, days: Sequence[date]) -> dict[tuple[date, str], Decimal]:
        found: dict[tuple[date, str], Decimal] = {}
        cutoff = self.connection.cutoff_hour
        for one in truth(
            self.sandbox.world, merchant=self.merchant.handle, first=days[0], last=days[-1], cutoff_hour=cutoff
        ):
            key = (one.business_date, one.currency)
            found[key] = found.get(key, Decimal(0)) + from_minor(one.total, one.currency)
        return {key: total for key, total in found.items() if total}


Connect = Callable[[str], Played]


@pytest.fixture
def connect(sandbox: RunningSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    monkeypatch.setenv("FLUX_HOME", str(tmp_path / "home"))
    with Runtime(Settings()) as runtime:

        def connect(name: str) -> Played:
            spec = all_providers()[name]
            merchant = least_busy(sandbox.world, name)
            key = f"{name}:{merchant.handle}"
            settings = {**hurried(spec), "cutoff_hour": merchant.cutoff_hour}
            connection, _ = connect_to_sandbox(
                runtime, key, tenant="contract", url=sandbox.url, merchant=merchant.handle, settings=settings
            )
            return Played(spec, sandbox, runtime, merchant, connection)

        yield connect
        sandbox.world.faults.change("")
