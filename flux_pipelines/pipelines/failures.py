"""Failing in part: what is good is recorded first, then the run fails, naming each connection and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg

from flux_pipelines.domain.errors import FluxError
from flux_pipelines.pipelines.metadata import preview
from flux_pipelines.pipelines.names import DRIVER_TAG
from flux_pipelines.pipelines.partitions import ranges

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
        days = ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in ranges(self.days))
        return f"{self.error} [{self.connection}: {days}]"


def retry_or_fail(
    context: dg.AssetExecutionContext,
    done: Mapping[str, Mapping[str, Any]],
    failed: Sequence[PartitionsFailed],
) -> dg.Failure | dg.RetryRequested:
    """Record the partitions that are done and return what to raise for the others.

    Dagster knows a partition as materialised only if told so before the step fails. Not a `RetryPolicy`: that would
    repeat what no repetition can mend, defects included, and keep a person at a terminal waiting.

    Args:
        context: the asset's context.
        done: partition key to metadata of what is committed.
        failed: what is not.

    """
    for key, metadata in done.items():
        context.log_event(dg.AssetMaterialization(context.asset_key, partition=key, metadata=dict(metadata)))
    rerun_helps = any(failure.error.rerun_helps for failure in failed)
    lost = sum(len(failure.days) for failure in failed)
    connections = sorted({failure.connection for failure in failed})
    failure = dg.Failure(
        description=(
            f"{lost} of {lost + len(done)} partitions failed ({', '.join(connections)}); the others are complete and "
            "recorded.\n" + "\n".join(str(failure) for failure in failed[:_SAMPLE])
        ),
        metadata={
            "partitions failed": lost,
            "partitions done": len(done),
            "failed": preview(
                ("connection", "business dates", "what happened", "a rerun helps", "what to do"),
                [
                    (
                        failure.connection,
                        ", ".join(f"{a} to {b}" for a, b in ranges(failure.days)),
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
    if rerun_helps and context.retry_number < _RETRIES and DRIVER_TAG not in context.run.tags:
        context.log.warning(failure.description)
        return dg.RetryRequested(max_retries=_RETRIES, seconds_to_wait=_RETRY_SECONDS * 2**context.retry_number)
    return failure
