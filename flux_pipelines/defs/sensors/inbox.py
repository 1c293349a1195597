"""From webhook events to partitions: which business dates they touch, few runs for many events, done when it is in core.

`docs/webhooks.md` has the states of an event and what happens when a process dies in between. Nothing that matters is kept
in memory or in the sensor's cursor: the inbox says where each event stands, and the runs of a batch carry its name.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of sensor functions as objects.

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.defs.assets.raw import newest_manifest
from flux_pipelines.defs.erasures import forget_request
from flux_pipelines.defs.jobs import assets_of, stream_request
from flux_pipelines.defs.partitions import connections_of, ranges, unit_by_grain
from flux_pipelines.defs.resources import FluxResource
from flux_pipelines.defs.runs import (
    Followed,
    brought_up_to_date,
    fetched_at,
    follow,
    latest_materialisation,
    partitions_of,
    why_failed,
)
from flux_pipelines.defs.staleness import (
    FORGET,
    Batch,
    EventResolver,
    Run,
    StalePartition,
    asks_to_forget,
    batches,
    forgotten,
)
from flux_pipelines.domain.errors import ConfigurationError, FluxError, ReauthorizationNeededError
from flux_pipelines.domain.partition import Partition
from flux_pipelines.providers.base import ORDERS, Provider, WebhookSource

if TYPE_CHECKING:
    from flux_pipelines.defs.internals import UnresolvedAssetJobDefinition
    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.runtime import Runtime
    from flux_pipelines.state import Event

#: A tick asks no new question after this long: the one under way may take its time, and Dagster ends a tick at 60 s.
MAX_ASKING_SECONDS = 10.0
#: A batch without a run is one whose tick died before Dagster had its requests; younger ones are being handed over.
HANDED_OVER = timedelta(seconds=60)
#: Automation brings the core tables up to date within seconds. After this long the sensor asks for it itself.
CORE_PATIENCE = timedelta(minutes=2)
CORE_ATTEMPTS = 3
#: Events looked at in one tick; more wait for the next one.
EVENTS_A_TICK = 5_000
#: Events explained by one question to the provider's `affected`.
EVENTS_A_QUESTION = 100
#: What failed for a passing reason is asked again after this long, however often it takes.
PASSING = timedelta(seconds=60)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def inbox_sensor(
    provider: Provider, jobs: Sequence["UnresolvedAssetJobDefinition | dg.JobDefinition"]
) -> dg.SensorDefinition:
    """Return the sensor that brings in what a provider's webhooks announce.

    Args:
        provider: whose.
        jobs: its sync, those that collect its streams, the one that forgets people, and the one that brings the core
            tables up to date.

    """

    @dg.sensor(
        name=f"{provider.name}_webhooks",
        jobs=list(jobs),
        description=(
            f"Syncs the business dates that {provider.title}'s webhooks announce, those of today too: new sales, edits and "
            "refunds are in the core tables within a minute; collects the streams that they announce, and forgets people who "
            "ask for it. Many events become few runs. An event is done when its runs have succeeded, and those of orders "
            "have brought core `transactions` up to date; one whose runs fail five times is given up with an alert. "
            "`flux inbox list` shows them."
        ),
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def webhooks(context: dg.SensorEvaluationContext, flux: FluxResource) -> dg.SensorResult:
        tick = _Tick(context, flux.sensor_runtime, provider)
        tick.follow_batches()
        tick.drain()
        return tick.result()

    return webhooks


@dataclass
class _Announced:
    """What the events of one tick come to."""

    #: Events that touch partitions, and whether they are tried for the first time.
    units: dict[int, tuple[frozenset[StalePartition], bool]] = field(default_factory=dict)
    #: Events for which nothing is to be done, by the reason why not.
    kept: dict[str, list[int]] = field(default_factory=dict)


class _Tick:
    """One look at a provider's inbox: what became of the batches under way, then what waits."""

    def __init__(self, context: dg.SensorEvaluationContext, runtime: "Runtime", provider: Provider) -> None:
        self._instance = context.instance
        self._log = context.log
        self._runtime = runtime
        self._inbox = runtime.state.inbox
        self._provider = provider
        self._now = datetime.now(UTC)
        self._stop_at = self._now + timedelta(seconds=MAX_ASKING_SECONDS)
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

    def follow_batches(self) -> None:
        """See what became of the batches under way."""
        for batch, (events, made_at) in self._inbox.batches().items():
            if not batch.startswith(f"{self._provider.name}-"):
                continue
            runs = follow(self._instance, {names.BATCH_TAG: batch}, self._now)
            if runs.outcome == "under way":
                self._busy |= {record.dagster_run.tags[names.CONNECTION_TAG] for record in runs.records}
            elif runs.failed is not None:
                self._failed(batch, runs.failed, why_failed(self._instance, runs.failed))
            elif runs.asked < _expected(runs):
                # One that was made far ahead was made before the clock was set back.
                if abs(self._now - made_at) > HANDED_OVER:
                    self._inbox.release(batch, "its run was never made", counted=False)
                    self.say(f"{events} events go again: their run was never made.")
            elif not self._fresh(runs, made_at):
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
        present = [Partition(connection, self._now.date())]
        partitions = present if stream.grain == "current" else partitions_of(run)
        keys = [str(unit_by_grain(stream.grain, partition)) for partition in partitions]
        made = [(asset, key) for asset in assets_of(self._provider, stream)[1:] for key in keys]
        stored = [newest_manifest(self._runtime.raw, stream, partition) for partition in partitions]
        if any(manifest is None or manifest.fetched_at < since for manifest in stored):
            return False
        rows = [latest_materialisation(self._instance, asset, partition) for asset, partition in made]
        return all(row is not None and fetched_at(row) >= since for row in rows)

    def _into_core(self, batch: str, runs: Followed) -> None:
        """Finish a batch whose rows have reached core `transactions`; ask for what should have brought them there."""
        of_orders = [r.dagster_run for r in runs.records if r.dagster_run.tags.get(names.STREAM_TAG, ORDERS) == ORDERS]
        days = sorted({partition.business_date for run in of_orders for partition in partitions_of(run)})
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

    # Events that wait

    def drain(self) -> None:
        """Turn the events that wait into batches and their runs."""
        connections = self._runtime.connections(self._provider.name)
        # These wait for a person, and must not stand before the others.
        resting = {c.key for c in connections if c.status in ("paused", "needs_reauth")}
        held = resting | self._busy
        events = self._inbox.pending(self._provider.name, EVENTS_A_TICK, without=held)
        of_resting = self._inbox.pending(
            self._provider.name, EVENTS_A_TICK, only=resting - self._busy, after=self._looked_at
        )
        if not events and not of_resting:
            return
        try:
            webhooks = self._runtime.webhooks(self._provider)
        except ConfigurationError as error:
            self.say(f"Webhook events of {self._provider.title} cannot be processed: {error}")
            return
        owners: dict[int, list[Connection]] = {}
        announced = _Announced()
        for event in of_resting:
            # Whoever asks to be forgotten does not wait until a connection works again.
            self._looked_at = max(self._looked_at, event.id)
            if asks_to_forget(webhooks, event):
                mine = [c for c in connections if c.key == event.connection_key]
                announced.units[event.id] = (forgotten(event.id, mine, self._now), not event.attempts)
        for event in events:
            # An event that names no account is of no connection, least of all of one whose account is not known.
            account = event.account_id
            self._came[event.id] = event.received_at
            mine = [c for c in connections if (account and c.account_id == account) or c.key == event.connection_key]
            if not mine and account:  # some events name a location alone
                keys = self._owners_of(account)
                mine = [c for c in connections if c.key in keys]
            working = [c for c in mine if c.status != "disconnected"]
            if mine and not working and asks_to_forget(webhooks, event):
                announced.units[event.id] = (forgotten(event.id, mine, self._now), not event.attempts)
            elif not self._provider.uses(event.event_type):
                announced.kept.setdefault(f"nothing is done for events of type {event.event_type}", []).append(event.id)
            elif not working:
                why = "the account was disconnected" if mine else "no connection is of this account"
                announced.kept.setdefault(why, []).append(event.id)
            elif not held & {c.key for c in working}:
                owners[event.id] = working
        self._explain(webhooks, [event for event in events if event.id in owners], owners, announced)
        for why, ids in announced.kept.items():
            self._inbox.keep(ids, why)
            self.say(f"{len(ids)} events kept: {why}.")
        self._wait_for_the_present(announced)
        for batch in batches(announced.units):
            self._request(batch)

    def _owners_of(self, location: str) -> Sequence[str]:
        """Return the connections that have a location, asked for once a tick."""
        if location not in self._owners:
            self._owners[location] = self._runtime.state.locations.owners(self._provider.name, location)
        return self._owners[location]

    def _wait_for_the_present(self, announced: "_Announced") -> None:
        """Let events of streams of the present wait a little after the last fetch: stock changes with each sale.

        What was fetched after an event has come holds what it announced.
        """
        for event, (units, _) in list(announced.units.items()):
            if any(unit.what == ORDERS or unit.what.startswith(FORGET) for unit in units):
                continue
            streams = [self._provider.stream(unit.what) for unit in units]
            if any(stream.grain == "day" for stream in streams):
                continue
            stored = [
                newest_manifest(
                    self._runtime.raw, self._provider.stream(unit.what), Partition(unit.connection, unit.day)
                )
                for unit in units
            ]
            fetched = min((m.fetched_at if m is not None else _LONG_AGO for m in stored), default=_LONG_AGO)
            if fetched >= self._came[event]:
                announced.kept.setdefault("it was fetched since", []).append(event)
                self._inbox.keep([event], "it was fetched since")
                del announced.units[event]
            elif abs(self._now - fetched) < PASSING:
                (connection,) = {unit.connection for unit in list(units)[:1]}
                self._put_off(connection, [event], "it waits: the same was fetched just now", passing=True)
                del announced.units[event]

    def _explain(
        self,
        webhooks: WebhookSource,
        events: Sequence["Event"],
        owners: dict[int, list["Connection"]],
        announced: _Announced,
    ) -> None:
        """Ask what the events announce, connection by connection, until the tick's time is up."""
        by_connection: dict[str, list[Event]] = {}
        for event in events:
            by_connection.setdefault(owners[event.id][0].key, []).append(event)
        for waiting in by_connection.values():
            if datetime.now(UTC) >= self._stop_at:
                return
            resolver = EventResolver(self._runtime, self._provider, webhooks, owners[waiting[0].id], self._now)
            try:
                for some in _portions(waiting):
                    if datetime.now(UTC) >= self._stop_at:
                        return
                    self._explain_some(resolver, some, announced)
            except FluxError as error:
                # Of this connection alone; the others go on.
                self._log.error(str(error))
                rest = [e.id for e in waiting if e.id not in announced.units and e.id not in _all(announced.kept)]
                passing = error.rerun_helps or isinstance(error, ReauthorizationNeededError)
                self._put_off(resolver.connection.key, rest, str(error), passing=passing)
            finally:
                resolver.close()

    def _explain_some(self, resolver: "EventResolver", events: Sequence["Event"], announced: _Announced) -> None:
        try:
            answers = resolver.affected(events)
        except FluxError:
            raise
        except Exception as error:  # noqa: BLE001 - a body that the provider's code does not expect may raise anything
            if len(events) == 1:
                why = f"it could not be understood ({type(error).__name__})"
                self._put_off(resolver.connection.key, [events[0].id], why, passing=False)
                return
            for event in events:  # one of them is bad: the others must not suffer for it
                self._explain_some(resolver, [event], announced)
            return
        for event, affected in zip(events, answers, strict=True):
            if affected.nothing:
                announced.kept.setdefault(affected.nothing, []).append(event.id)
                continue
            if affected.revoked:
                announced.kept.setdefault(self._revoked(resolver), []).append(event.id)
                continue
            if affected.erase is not None:
                announced.units[event.id] = (forgotten(event.id, resolver.connections, self._now), not event.attempts)
                continue
            if affected.locations and not (affected.sold or affected.days or affected.streams):
                resolver.ask_for_locations()
                announced.kept.setdefault("the connection's locations were read again", []).append(event.id)
                continue
            units, early = resolver.units(affected)
            if early:
                self._put_off(resolver.connection.key, [event.id], "its business date has not begun yet", passing=False)
            elif units:
                announced.units[event.id] = (units, not event.attempts)
            else:
                announced.kept.setdefault("it is of no business date and location of this connection", []).append(
                    event.id
                )

    def _revoked(self, resolver: "EventResolver") -> str:
        """Take in that the account was disconnected at the provider, unless it has been connected again since."""
        connection = resolver.connection
        try:
            resolver.source.verify_access()
        except ReauthorizationNeededError:
            reason = f"the authorisation was revoked at {self._provider.title}"
            self._runtime.state.connections.set_status(connection.key, "needs_reauth", reason)
            return f"{reason}; the connection waits to be connected again"
        return "the connection works: it was authorised again since"

    def _put_off(self, connection: str, ids: Iterable[int], why: str, *, passing: bool) -> None:
        """Let events wait before they are looked at again; what does not pass by itself counts as an attempt."""
        batch = self._name()
        if not self._inbox.assign(ids, batch, connection_key=connection, at=self._now):
            return
        if passing:
            self._inbox.release(batch, why, counted=False, delay=PASSING)
            return
        lost = self._inbox.release(batch, why)
        if lost:
            self.give_up(connection, lost, why)

    def _name(self) -> str:
        return f"{self._provider.name}-{uuid.uuid4().hex}"

    def _request(self, batch: Batch) -> None:
        name, runs = self._name(), batch.runs()
        # Assigned first: should this process die before Dagster has the request, the batch has no run and is released.
        events = self._inbox.assign(batch.ids, name, connection_key=runs[0].connection, at=self._now)
        self.say(f"{events} events make {len(batch.units)} partitions stale.")
        for run in runs:
            tags = {
                names.BATCH_TAG: name,
                names.BATCH_RUNS_TAG: str(len(runs)),
                names.PRIORITY_TAG: names.FRESH,
            }
            self._requests.append(self._run_request(run, f"{name}|{run.connection}|{run.what}|{run.first}", tags))

    def _run_request(self, run: Run, run_key: str, tags: dict[str, str]) -> dg.RunRequest:
        if run.what.startswith(FORGET):
            return forget_request(run.connection, run_key=run_key, tags={**tags, names.STREAM_TAG: FORGET})
        stream = self._provider.stream(run.what)
        return stream_request(self._provider, stream, run.connection, run.first, run.last, run_key=run_key, tags=tags)


def _portions(events: Sequence["Event"]) -> Iterator[Sequence["Event"]]:
    for start in range(0, len(events), EVENTS_A_QUESTION):
        yield events[start : start + EVENTS_A_QUESTION]


def _all(groups: dict[str, list[int]]) -> set[int]:
    return {one for group in groups.values() for one in group}


def _expected(runs: Followed) -> int:
    """Return into how many runs a batch was cut; at least one."""
    return max((int(r.dagster_run.tags.get(names.BATCH_RUNS_TAG, "1")) for r in runs.records), default=1)
