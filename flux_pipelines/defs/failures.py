"""Failing in part: what is good is recorded first, then the run fails, naming each connection and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import dagster as dg

from flux_pipelines.defs.metadata import preview
from flux_pipelines.defs.names import DRIVER_TAG
from flux_pipelines.defs.partitions import ranges
from flux_pipelines.domain.errors import ContractBrokenError, FluxError, TableDamagedError

#: What is wrong with a partition itself: the others of a step must not suffer for it.
OF_ITS_PARTITION = (TableDamagedError, ContractBrokenError)

_SAMPLE = 50
#: What the retries of each request could not overcome may be over in minutes.
_RETRIES = 2
_RETRY_SECONDS = 60


@dataclass(frozen=True, slots=True)
class PartitionsFailed:
    """Business dates of one connection that failed for one reason."""

    connection: str
    days: tuple[date, ...]
    error: FluxError

    def __str__(self) -> str:
        count = f"{len(self.days)} business dates, " if len(self.days) > 1 else ""
        return f"{self.error} [{self.connection}{': ' if self.days else ''}{count}{self.dates}]"

    @property
    def dates(self) -> str:
        """Its business dates for people: ranges, one after the other."""
        return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in ranges(self.days))

    @property
    def reason(self) -> tuple[object, ...]:
        """What is the same of all that failed for this reason, however often each was tried."""
        return self.connection, self.error.what, self.error.rerun_helps, self.error.next_step


def by_reason(failed: Iterable[PartitionsFailed]) -> list[PartitionsFailed]:
    """Return what failed with one entry a reason: 365 dates without an answer are one line, with their range."""
    found: dict[tuple[object, ...], PartitionsFailed] = {}
    for one in failed:
        known = found.setdefault(one.reason, one)
        found[one.reason] = replace(known, days=tuple(sorted({*known.days, *one.days})))
    return list(found.values())


def retry_or_fail(
    context: dg.AssetExecutionContext,
    done: Mapping[str, Mapping[str, Any]],
    failed: Sequence[PartitionsFailed],
    *,
    in_part: bool = False,
) -> dg.Failure | dg.RetryRequested:
    """Record the partitions that are done and return what to raise for the others.

    Dagster knows a partition as materialised only if told so before the step fails. Not a `RetryPolicy`: that would
    repeat what no repetition can mend, defects included, and keep a person at a terminal waiting.

    Args:
        context: the asset's context.
        done: partition key to metadata of what is committed; the key of an asset without partitions is empty.
        failed: what is not.
        in_part: what failed is a connection's part of partitions that are done otherwise.

    """
    for key, metadata in done.items():
        context.log_event(dg.AssetMaterialization(context.asset_key, partition=key or None, metadata=dict(metadata)))
    failed = by_reason(failed)
    rerun_helps = any(failure.error.rerun_helps for failure in failed)
    lost = sum(max(1, len(failure.days)) for failure in failed)
    connections = ", ".join(sorted({failure.connection for failure in failed}))
    assets = ", ".join(sorted(key.to_user_string() for key in context.selected_asset_keys))
    others = "; the others are complete and recorded" if done else ""
    headline = (
        f"{assets}: of {connections} what is named below was left at its last good version; everything else is complete and recorded."
        if in_part
        else f"{assets}: {lost} of {lost + len(done)} partitions failed ({connections}){others}."
    )
    more = [f"... and {len(failed) - _SAMPLE} more reasons."] if len(failed) > _SAMPLE else []
    failure = dg.Failure(
        description="\n".join((headline, *(str(failure) for failure in failed[:_SAMPLE]), *more)),
        metadata={
            "partitions failed": lost,
            "partitions done": len(done),
            "failed": preview(
                ("connection", "business dates", "what happened", "a rerun helps", "what to do"),
                [
                    (
                        failure.connection,
                        failure.dates,
                        failure.error.what,
                        "yes" if failure.error.rerun_helps else "no",
                        failure.error.next_step,
                    )
                    for failure in failed[:_SAMPLE]
                ],
            ),
        },
        allow_retries=rerun_helps,
    )
    return _again(context, failure) if rerun_helps else failure


@contextmanager
def explained(context: dg.AssetExecutionContext) -> Iterator[None]:
    """Turn an error of ours into what Dagster shows: what happened and what to do, tried again only if that can help.

    For assets whose partitions are written in one commit: all are done, or none.
    """
    try:
        yield
    except FluxError as error:
        failure = dg.Failure(
            description=str(error),
            metadata={"a rerun helps": error.rerun_helps, "what to do": error.next_step or "nothing more is known"},
            allow_retries=error.rerun_helps,
        )
        raise (_again(context, failure) if error.rerun_helps else failure) from error


def _again(context: dg.AssetExecutionContext, failure: dg.Failure) -> dg.Failure | dg.RetryRequested:
    """Return a request to try again in a while; the failure once that has been done, or with a person waiting."""
    if context.retry_number >= _RETRIES or DRIVER_TAG in context.run.tags:
        return failure
    context.log.warning(failure.description)
    return dg.RetryRequested(max_retries=_RETRIES, seconds_to_wait=_RETRY_SECONDS * 2**context.retry_number)
