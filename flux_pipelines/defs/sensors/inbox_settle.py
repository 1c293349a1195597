"""What became of the batches of webhook events under way: done, to be tried again, or given up."""

# No `from __future__ import annotations` here: the sensor's module reads annotations as objects.

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.assets.raw import key_of, newest_manifest
from flux_pipelines.defs.jobs import assets_of
from flux_pipelines.defs.partitions import connections_of, ranges
from flux_pipelines.defs.runs import (
    Followed,
    brought_up_to_date,
    days_of,
    fetched_at,
    follow,
    latest_materialisation,
    why_failed,
)
from flux_pipelines.defs.staleness import FORGET
from flux_pipelines.providers.base import ORDERS, Provider

if TYPE_CHECKING:
    from flux_pipelines.runtime import Runtime

#: A tick asks no new question after this long: the one under way may take its time, and Dagster ends a tick at 60 s.
SETTLE_SECONDS = 10.0
#: A batch without a run is one whose tick died before Dagster had its requests; younger ones are being handed over.
HANDED_OVER = timedelta(seconds=60)
#: Automation brings the core tables up to date within seconds. After this long the sensor asks for it itself.
CORE_PATIENCE = timedelta(minutes=2)
CORE_ATTEMPTS = 3
#: How the time is written in the name of a batch.
STAMP = "%Y%m%dT%H%M%SZ"


class Settling:
    """The half of a look at a provider's inbox that sees what became of the batches under way."""

    def __init__(self, context: dg.SensorEvaluationContext, runtime: "Runtime", provider: Provider) -> None:
        self._instance = context.instance
        self._log = context.log
        self._runtime = runtime
        self._inbox = runtime.state.inbox
        self._provider = provider
        self._now = datetime.now(UTC)
        self._stop_at = self._now + timedelta(seconds=SETTLE_SECONDS)
        #: Connections that a batch is being synced for: what comes meanwhile waits, and then goes together.
        self._busy: set[str] = set()
        #: Events of connections that rest, up to which id it has been seen whether people ask to be forgotten by them.
        #: Kept in the cursor to spare work alone: without it they are looked at again.
        self._looked_at = int(context.cursor or 0)
        self._owners: dict[str, Sequence[str]] = {}
        #: When each event of this tick arrived.
        self._came: dict[int, datetime] = {}
        self._requests: list[dg.RunRequest] = []
        self._told: list[str] = []

    def result(self) -> dg.SensorResult:
        """Return what the tick asks of Dagster."""
        known = set(self._instance.get_dynamic_partitions(str(connections_of(self._provider.name).name)))
        new = {
            request.tags[names.CONNECTION_TAG] for request in self._requests if names.BATCH_TAG in request.tags
        } - known
        additions: list[Any] = [connections_of(self._provider.name).build_add_request(sorted(new))] if new else []
        return dg.SensorResult(
            run_requests=self._requests,
            dynamic_partitions_requests=additions,
            cursor=str(self._looked_at),
            skip_reason=None if self._requests else " ".join(self._told) or "No events wait.",
        )

    def say(self, what: str) -> None:
        """Tell people what was done."""
        self._log.info(what)
        self._told.append(what)

    # Batches under way

    def settle(self) -> None:
        """See what became of the batches under way."""
        for batch, events in self._inbox.batches().items():
            if not batch.startswith(f"{self._provider.name}-"):
                continue
            runs = follow(self._instance, {names.BATCH_TAG: batch}, self._now)
            if runs.outcome == "under way":
                self._busy |= {record.dagster_run.tags[names.CONNECTION_TAG] for record in runs.records}
            elif runs.failed is not None:
                self._failed(batch, runs.failed, why_failed(self._instance, runs.failed))
            elif runs.asked < _expected(runs):
                # One that was made far ahead was made before the clock was set back.
                if abs(self._now - _made_at(batch)) > HANDED_OVER:
                    self._inbox.release(batch, "its run was never made", counted=False)
                    self.say(f"{events} events go again: their run was never made.")
            elif not self._fresh(runs, _made_at(batch)):
                self._inbox.release(batch, "an older fetch was stored after its run", counted=False)
                self.say(f"{events} events go again: an older fetch was stored after their run.")
            else:
                self._into_core(batch, runs)

    def _fresh(self, runs: Followed, since: datetime) -> bool:
        """Tell whether a batch's orders and rows are still those fetched after its events had come.

        A sync that somebody started before may have ended after the batch's own, and have stored what it had read.
        """
        return all(self._is_fresh(record.dagster_run, since) for record in runs.records)

    def _is_fresh(self, run: dg.DagsterRun, since: datetime) -> bool:
        what = run.tags.get(names.STREAM_TAG, ORDERS)
        if what.startswith(FORGET):
            return True
        stream = self._provider.stream(what)
        connection = run.tags[names.CONNECTION_TAG]
        first, last = run.tags[names.RANGE_START], run.tags[names.RANGE_END]
        days = [self._now.date()] if stream.grain == "current" else days_of(run)[1]
        keys = [first] if first == last else [key_of(stream.grain, connection, day) for day in days]
        made = [(asset, key) for asset in assets_of(self._provider, stream)[1:] for key in keys]
        stored = [newest_manifest(self._runtime.raw, stream, connection, day) for day in days]
        if any(manifest is None or manifest.fetched_at < since for manifest in stored):
            return False
        rows = [latest_materialisation(self._instance, asset, partition) for asset, partition in made]
        return all(row is not None and fetched_at(row) >= since for row in rows)

    def _into_core(self, batch: str, runs: Followed) -> None:
        """Finish a batch whose rows have reached core `transactions`; ask for what should have brought them there."""
        of_orders = [r.dagster_run for r in runs.records if r.dagster_run.tags.get(names.STREAM_TAG, ORDERS) == ORDERS]
        days = sorted({day for run in of_orders for day in days_of(run)[1]})
        if brought_up_to_date(self._instance, names.TRANSACTIONS, [str(day) for day in days], runs.ended_at):
            done = self._inbox.finish(batch)
            self.say(f"{done} events done.")
            self._all_is_well()
            return
        if abs(self._now.timestamp() - runs.ended_at) < CORE_PATIENCE.total_seconds():
            self.say("The core tables are being brought up to date.")
            return
        core = follow(self._instance, {names.CORE_TAG: batch}, self._now)
        if core.outcome == "under way" and core.asked:
            return
        if core.asked >= CORE_ATTEMPTS * len(ranges(days)):
            why = why_failed(self._instance, core.failed) if core.failed is not None else "others keep changing them"
            self._failed(batch, runs.records[0].dagster_run, f"the core tables could not be brought up to date: {why}")
            return
        self._requests += [
            dg.RunRequest(
                run_key=f"{batch}|core|{core.asked}|{first}",
                job_name=names.REFRESH_CORE_JOB,
                tags={
                    names.RANGE_START: first.isoformat(),
                    names.RANGE_END: last.isoformat(),
                    names.AUTOMATION_TAG: "core",
                    names.CORE_TAG: batch,
                },
            )
            for first, last in ranges(days)
        ]

    def _failed(self, batch: str, run: dg.DagsterRun, why: str) -> None:
        connection = run.tags.get(names.CONNECTION_TAG, "")
        lost = self._inbox.release(batch, why)
        self._log.error(f"{connection}: what webhooks announced could not be brought in: {why}")
        if lost:
            self.give_up(connection, lost, why)

    def give_up(self, connection: str, events: int, why: str) -> None:
        """Raise the alert that events were given up."""
        self._runtime.state.alerts.raise_(
            "inbox_failed",
            connection,
            f"{events} webhook events were given up after several attempts: {why} When that is mended, run "
            "`flux inbox retry`; until then sync their business dates by hand if they matter.",
        )

    def _all_is_well(self) -> None:
        if self._inbox.counts(self._provider.name)["failed"]:
            return
        for alert in self._runtime.state.alerts.open():
            if alert.kind == "inbox_failed" and alert.connection_key.startswith(f"{self._provider.name}:"):
                self._runtime.state.alerts.resolve("inbox_failed", alert.connection_key)


def _expected(runs: Followed) -> int:
    """Return into how many runs a batch was cut; at least one."""
    return max((int(r.dagster_run.tags.get(names.BATCH_RUNS_TAG, "1")) for r in runs.records), default=1)


def _made_at(batch: str) -> datetime:
    return datetime.strptime(batch.split("-")[1], STAMP).replace(tzinfo=UTC)
