"""Collects streams in this process, for the command line: the same jobs on the same instance as everything else."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from flux_pipelines.defs import names
from flux_pipelines.defs.assets.normalized import ORDERS, grain_of
from flux_pipelines.defs.assets.raw import key_of
from flux_pipelines.defs.completeness import collected_until
from flux_pipelines.defs.jobs import streams_of
from flux_pipelines.defs.tags import connection_tags, day_tags, runs_of
from flux_pipelines.providers.registry import provider as provider_named

if TYPE_CHECKING:
    import dagster as dg

    from flux_pipelines.defs.runner import Driver
    from flux_pipelines.providers.base import Grain, Provider, StreamTable


class StreamDriver:
    """Brings what is beside orders up to date. What fails is added to the driver's failures, and holds back nothing else.

    Args:
        driver: runs jobs.

    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._books: set[date] = set()  # what the core tables have to be brought up to date for
        self._grains: set[Grain] = set()

    def collect(
        self, provider: str, landed: Mapping[str, Collection[date]], days: Sequence[date], *, sync_token: str
    ) -> None:
        """Collect the streams of some business dates and of the present, and make the provider's tables of them.

        Args:
            provider: the provider's name.
            landed: connections, each with the dates whose orders are complete. One without any is left out: what kept
                its orders away keeps these away too, and has been told.
            days: the business dates.
            sync_token: names the sync: days that it has stored already are not fetched again.

        """
        spec = provider_named(provider)
        today = datetime.now(UTC).date()
        grains: tuple[Grain, ...] = ("hour", "current")
        for connection, sold in landed.items():
            if not sold:
                continue
            inside = self._derive(spec, connection, sorted(sold))
            self._books |= {*sold, *inside, *self._days(spec, connection, days, sync_token)}
            for grain in grains:
                if streams_of(spec, grain):
                    self._grains.add(grain)
                    key = key_of(grain, connection, today)
                    tags = {
                        names.CONNECTION_TAG: connection,
                        names.SYNC_TAG: sync_token,
                        names.RANGE_START: key,
                        names.RANGE_END: key,
                    }
                    self._driver.run(names.stream_job(provider, grain), tags)

    def refresh(self) -> None:
        """Bring the core tables up to date for what has been collected."""
        self.refresh_books(self._books)
        if "hour" in self._grains:
            today = datetime.now(UTC).date()
            self._driver.run(names.REFRESH_STOCK_JOB, day_tags(today, today))
        if "current" in self._grains:
            self._driver.run(names.REFRESH_CATALOGUE_JOB, {})
            self._driver.run(names.MAPPING_JOB, {})

    def refresh_books(self, days: Collection[date]) -> None:
        """Bring the core tables of payments and hours, and what is compared with them, up to date for business dates.

        Payments are collected for a date more than orders: of that one there are no sales that could be shown.
        """
        sold = self._driver.fetched(days)
        for some, without in ((sold, ()), (set(days) - sold, (names.DAILY_SALES,))):
            for first, last in runs_of(sorted(some)):
                self._driver.run_through(names.REFRESH_BOOKS_JOB, day_tags(first, last), without=without)

    def make(self, spec: Provider, table: StreamTable, connection: str, days: Sequence[date]) -> set[date]:
        """Make a table of what has been fetched of a daily stream; return the dates that it has."""
        job = names.derive_job(spec.name) if table.stream == ORDERS else names.stream_job(spec.name, "day")
        return self._again(job, connection, days, names.provider_table(spec.name, table.table))

    def replay(
        self, provider: str, connection: str, quarantined: Sequence[Mapping[str, Any]], days: Collection[date]
    ) -> None:
        """Make the tables of streams again whose records are in quarantine: they may be usable by now.

        Args:
            provider: the provider's name.
            connection: the connection's key.
            quarantined: its rows of the quarantine.
            days: the business dates that are meant.

        """
        spec = provider_named(provider)
        for table in spec.tables:
            key = names.provider_table(provider, table.table)
            bad = {row["business_date"] for row in quarantined if row["asset"] == key.to_user_string()} & set(days)
            grain = grain_of(spec, table)
            job = names.derive_job(provider) if table.stream == ORDERS else names.stream_job(provider, grain)
            for first, last in runs_of(sorted(bad)):
                tags = {
                    names.CONNECTION_TAG: connection,
                    names.RANGE_START: key_of(grain, connection, first),
                    names.RANGE_END: key_of(grain, connection, last),
                }
                self._driver.run(job, tags, [key])
                if grain == "day":
                    self._driver.run_through(names.REFRESH_BOOKS_JOB, day_tags(first, last))
                elif grain == "hour":
                    self._driver.run(names.REFRESH_STOCK_JOB, day_tags(first, last))
                else:
                    self._driver.run(names.REFRESH_CATALOGUE_JOB, {})

    def _derive(self, spec: Provider, connection: str, days: Sequence[date]) -> set[date]:
        """Make the tables that are kept inside orders; return the dates whose rows have changed."""
        done: set[date] = set()
        inside = [names.provider_table(spec.name, table.table) for table in spec.tables if table.stream == ORDERS]
        for first, last in runs_of(days) if inside else ():
            result = self._driver.run(names.derive_job(spec.name), connection_tags(connection, first, last))
            done = done.union(*(self._driver.recorded(result, key) for key in inside))
        return done

    def _days(self, spec: Provider, connection: str, days: Sequence[date], sync_token: str) -> set[date]:
        """Collect the daily streams and make their tables; return the dates that one of them has now."""
        done: set[date] = set()
        if not streams_of(spec, "day"):
            return done
        job = names.stream_job(spec.name, "day")
        for first, last in runs_of([*days, collected_until(days[-1], datetime.now(UTC))]):
            tags = connection_tags(connection, first, last)
            result = self._driver.run(job, tags | {names.SYNC_TAG: sync_token})
            for table in spec.tables:
                if table.stream == ORDERS or grain_of(spec, table) != "day":
                    continue
                key = names.provider_table(spec.name, table.table)
                stored = self._driver.recorded(result, names.raw_stream(spec.name, table.stream))
                made = self._driver.recorded(result, key)
                if stored and not made:  # some days failed: Dagster has not begun with the others' tables
                    made = self._again(job, connection, sorted(stored), key)
                done |= made
        return done

    def _again(self, job: str, connection: str, days: Sequence[date], key: dg.AssetKey) -> set[date]:
        done: set[date] = set()
        for first, last in runs_of(days):
            result = self._driver.run(job, connection_tags(connection, first, last), [key])
            done |= self._driver.recorded(result, key)
        return done
