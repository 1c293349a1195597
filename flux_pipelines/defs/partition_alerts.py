"""Alerts about partitions: those that cannot be read, that the provider says are empty, or that a table could not take.

Each is open until the last partition that it names is well again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from flux_pipelines.defs.partitions import ranges
from flux_pipelines.domain.connection import split_key
from flux_pipelines.domain.errors import EmptiedError, TableDamagedError
from flux_pipelines.domain.partition import Partition, Unit
from flux_pipelines.lake import CURRENT

if TYPE_CHECKING:
    from flux_pipelines.lake import RawManifest, RawStore
    from flux_pipelines.runtime import Runtime
    from flux_pipelines.sync.records import DayOutcome

#: What stands for the newest of the hourly snapshots, where there is nothing to be said of a single hour.
_SNAPSHOTS = "snapshots"
_SHOWN = 10


def follow_outcomes(runtime: Runtime, connection: str, stream: str, outcomes: Iterable[DayOutcome]) -> None:
    """Keep the alerts in step with what became of some partitions of a stream that were fetched."""
    empty: dict[str, str] = {}
    full: list[str] = []
    read: list[str] = []
    for outcome in outcomes:
        if isinstance(outcome.error, EmptiedError):
            kept = outcome.manifest
            place = outcome.day.isoformat() if kept is None else _place(kept)
            # Of the snapshot before it the manifest says nothing: it was right in its time.
            empty[f"{stream}|{place}"] = str(kept.verification.expected or kept.orders) if kept is not None else "?"
        elif outcome.manifest is not None:
            full.append(f"{stream}|{_place(outcome.manifest)}")
            read.append(f"{stream}|{outcome.manifest.slot or outcome.day}")
    runtime.state.alerts.follow("came_back_empty", connection, empty, full, lambda left: _emptied(connection, left))
    runtime.state.alerts.follow("records_damaged", connection, {}, read, lambda left: _damaged(connection, left))


def follow_damage(runtime: Runtime, connection: str, raw: RawStore, damaged: Mapping[str, TableDamagedError]) -> None:
    """Keep the alert about what cannot be read in step with some partitions of a stream that were looked at.

    Partitions that it names already are looked at again: somebody may have restored them.

    Args:
        runtime: the rooms.
        connection: the connection's key.
        raw: the stream's records.
        damaged: by date or slot, why partitions cannot be read.

    """
    known = runtime.state.alerts.parts("records_damaged", connection)
    named = [part.partition("|")[2] for part in known if part.partition("|")[0] == raw.stream]
    others = [slot for slot in named if slot not in damaged]
    still = raw.look(connection, others, files=True).damaged
    broken = {**still, **damaged}
    mended = [f"{raw.stream}|{slot}" for slot in others if slot not in broken]
    what = {f"{raw.stream}|{slot}": error.what for slot, error in broken.items()}
    runtime.state.alerts.follow("records_damaged", connection, what, mended, lambda left: _damaged(connection, left))


def follow_refusals(
    runtime: Runtime,
    asset: str,
    refused: Mapping[Unit, str],
    mended: Collection[Unit] = (),
    *,
    days: Collection[date] | None = None,
) -> None:
    """Keep the alert about what a table could not take in step with what became of some of it.

    Args:
        runtime: the rooms.
        asset: the table, as Dagster calls it.
        refused: units, each with the reason.
        mended: units that the table has taken.
        days: business dates of which it has taken everything else, of every connection.

    """
    broken: dict[str, dict[str, str]] = {}
    taken: dict[str, list[str]] = {}

    def named(unit: Unit) -> tuple[str, str]:
        """Return whose alert a unit is part of, and what it is called there."""
        if isinstance(unit, Partition):
            return unit.connection, f"{asset}|{unit.business_date}"
        return unit, f"{asset}|"

    for unit, why in refused.items():
        connection, part = named(unit)
        broken.setdefault(connection, {})[part] = why
    for connection, part in map(named, mended):
        taken.setdefault(connection, []).append(part)
    open_ones = {alert.connection_key for alert in runtime.state.alerts.open() if alert.kind == "data_refused"}
    others = [f"{asset}|{day}" for day in days or ()]
    for connection in sorted({*broken, *open_ones}):
        mine = broken.get(connection, {})
        well = [part for part in (*taken.get(connection, ()), *others) if part not in mine]
        runtime.state.alerts.follow("data_refused", connection, mine, well, _refused)


def _refused(left: Mapping[str, str]) -> str:
    return (
        f"tables could not take what came, and have what they had before: {_listed(left, counted=False)}. First of "
        f"them: {next(iter(left.values()))}. The check's sample and the failed run in Dagster say more. Mend the cause at the "
        "provider or report it, then run these partitions again."
    )


def _place(manifest: RawManifest) -> str:
    """Return what an alert about emptiness calls a partition: snapshots are one, whatever their hour."""
    return _SNAPSHOTS if manifest.hour is not None else manifest.slot or manifest.business_date.isoformat()


def _emptied(connection: str, left: Mapping[str, str]) -> str:
    return (
        f"the provider said that there is nothing where records are stored: {_listed(left, counted=True)}. What is stored is "
        "kept, in every table. The last 7 closed business dates are asked for again by themselves, older ones by "
        f"{_command(connection, left)}. If the provider's own report shows that the records are really gone, accept it: the "
        "same command with `--accept-empty`."
    )


def _damaged(connection: str, left: Mapping[str, str]) -> str:
    hours = any("/" in part for part in left)
    return (
        f"what is stored cannot be read: {_listed(left, counted=False)}. First of them: {next(iter(left.values()))}. Tables "
        "keep the rows they have. They are fetched again by themselves: the last 7 closed business dates within the hour, older "
        f"ones once a day. Sooner by {_command(connection, left)}."
        + (" Snapshots of past hours cannot be had again: restore them from a backup, or delete them." if hours else "")
    )


def _listed(left: Mapping[str, str], *, counted: bool) -> str:
    """Write parts for people: `orders of 2026-03-01 to 2026-03-05 (120 records), payments of 2026-03-02 (3 records)`."""
    told: list[str] = []
    for stream in dict.fromkeys(part.partition("|")[0] for part in left):
        mine = {part.partition("|")[2]: what for part, what in left.items() if part.startswith(f"{stream}|")}
        spans = [(a, b, [d.isoformat() for d in _dates(mine) if a <= d <= b]) for a, b in ranges(_dates(mine))]
        groups = [(f"{stream} of {a}" if a == b else f"{stream} of {a} to {b}", slots) for a, b, slots in spans]
        groups += [
            (stream if slot in ("", CURRENT, _SNAPSHOTS) else f"{stream} of {slot}", [slot])
            for slot in mine
            if not _is_date(slot)
        ]
        for name, slots in groups:
            number = sum(int(mine[slot]) for slot in slots if mine[slot].isdigit()) if counted else 0
            told.append(f"{name} ({number} records)" if number else name)
    more = f", and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return ", ".join(told[:_SHOWN]) + more


def _command(connection: str, left: Mapping[str, str]) -> str:
    days = _dates(part.partition("|")[2] for part in left)
    days = days or [datetime.now(UTC).date()]  # what there is now comes with any date
    return f"`flux sync {split_key(connection)[0]} --connection {connection} --from {days[0]} --to {days[-1]}`"


def _dates(slots: Iterable[str]) -> list[date]:
    return sorted(date.fromisoformat(slot) for slot in slots if _is_date(slot))


def _is_date(slot: str) -> bool:
    try:
        date.fromisoformat(slot)
    except ValueError:
        return False
    return True
