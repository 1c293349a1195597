"""What a sync does, step by step, without a run of Dagster's for each: to do it a hundred times in a test."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from flux_pipelines.connections import add_with_secrets, connect_to_sandbox
from flux_pipelines.defs.assets import core, union
from flux_pipelines.defs.assets.finance import agreement, tie_out
from flux_pipelines.defs.assets.normalized import normalizing
from flux_pipelines.domain import tables
from flux_pipelines.lake import session
from flux_pipelines.providers.base import Provider
from flux_pipelines.providers.registry import provider as provider_named
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import settings
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.daily import read_days
from flux_pipelines.sync.windowed import read_windowed
from flux_pipelines_tests.defs.conftest import new_instance
from flux_sandbox.server import RunningSandbox

#: The core tables that are made of orders and payments, in the order in which they are made.
TABLES = ("transactions", "payments", "daily_sales", "daily_item_demand", "open_items", "tie_out")


@contextmanager
def opened(folder: Path, start: date) -> Iterator[Runtime]:
    """A home of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLUX_HOME", str(folder))
        patch.setenv("FLUX_START_DATE", start.isoformat())
        settings.cache_clear()
        with Runtime() as runtime:
            yield runtime
    settings.cache_clear()


@contextmanager
def connected(
    folder: Path, sandbox: RunningSandbox, key: str, start: date, merchant: str | None = None, **more: Any
) -> Iterator[Runtime]:
    """A home of its own, with one connection."""
    with opened(folder, start) as runtime:
        connect_to_sandbox(runtime, key, tenant="tenant", url=sandbox.url, merchant=merchant, settings=more)
        yield runtime


@contextmanager
def connected_with(folder: Path, key: str, start: date, secrets: dict[str, str], **more: Any) -> Iterator[Runtime]:
    """A home of its own with a Dagster instance, and one connection to a server that is not the sandbox."""
    with opened(folder, start) as runtime:
        home = runtime.settings.dagster_home
        shutil.copytree(new_instance() / home.name, home)
        add_with_secrets(runtime, key, tenant="tenant", settings=more, secrets=secrets)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            instance.add_dynamic_partitions(f"{key.partition(':')[0]}_connections", [key])
            yield runtime


def bring_in(runtime: Runtime, key: str, days: Sequence[date]) -> None:
    """Bring a connection's orders and payments of business dates into every table; nothing may fail."""
    spec = provider_named(key.partition(":")[0])
    _fetch(runtime, spec, key, days)
    changed = _made(runtime, spec, key, days).union(days)
    dates = sorted(day for day in changed if day >= runtime.settings.start_date)
    marts = (
        core.transactions(),
        *(union.by_day(*one) for one in union.BY_DAY if one[0] is tables.PAYMENTS),
        agreement.daily_sales(),
        core.daily_item_demand(),
        tie_out.open_items(),
        tie_out.tie_out(),
    )
    for mart in marts:
        written = mart.replace(runtime, dates)
        assert (written.refused, written.findings.refused) == ({}, {})


def _fetch(runtime: Runtime, spec: Provider, key: str, days: Sequence[date]) -> None:
    connection = runtime.state.connections.get(key)
    source = runtime.source(connection)
    try:
        locations = runtime.refresh_locations(connection, source)
        context = SyncContext(source, connection, locations, runtime.raw, spec, redact=runtime.redactor(connection))
        stale: set[date] = set()
        for outcome in read_windowed(context, days):
            assert outcome.error is None
            stale |= outcome.stale
        for outcome in read_windowed(context, stale):
            assert outcome.error is None
        for stream in spec.streams:
            if stream.name == "payments":
                collected = read_days(replace(context, raw=runtime.raw.of("payments")), days)
                assert [one.error for one in collected if one.error] == []
    finally:
        source.close()


def _made(runtime: Runtime, spec: Provider, key: str, days: Sequence[date]) -> set[date]:
    """Make the provider's own tables; return the business dates whose rows have changed."""
    changed: set[date] = set()
    for table in spec.tables:
        if table.table in (tables.TRANSACTIONS.name, tables.PAYMENTS.name):
            step = normalizing(runtime, spec, table, "bare", checked=False)
            step.run({key: days})
            assert step.failed == []
            changed |= {partition.business_date for partition in step.changed_dates.changed}
    return changed


def contents(runtime: Runtime, tables_: Iterable[str] = TABLES) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of tables."""
    with session(runtime.lake, tables_ := list(tables_)) as database:
        return {name: database.execute(f"select * from {name} order by all").fetchall() for name in tables_}


def fingerprints(runtime: Runtime, tables_: Iterable[str] = TABLES) -> dict[str, tuple[Any, ...]]:
    """Return how many rows tables have, and a fingerprint of all of them, in no order."""
    with session(runtime.lake, tables_ := list(tables_)) as database:
        return {
            name: database.execute(
                "select count(*), bit_xor(md5_number(row)), sum(hash(row)) "
                f"from (select cast(t as varchar) as row from {name} t)"
            ).fetchall()[0]
            for name in tables_
        }
