"""One fault is one line, on however many partitions it falls."""

# No `from __future__ import annotations` here: Dagster reads the annotations of asset functions as objects.

from datetime import date, timedelta

import dagster as dg
import pytest

from flux_pipelines.defs.failures import PartitionsFailed, by_reason, retry_or_fail
from flux_pipelines.defs.names import DRIVER_TAG
from flux_pipelines.domain.errors import FluxError, PermissionLostError, ProviderUnavailableError

YEAR = [date(2026, 1, 1) + timedelta(days=n) for n in range(365)]


def gone(attempt: int) -> FluxError:
    """The same fault, found after more or fewer attempts."""
    return ProviderUnavailableError(
        "GET https://x.example/orders was answered 503", connection="square:a", attempts=attempt
    )


def described(failed: list[PartitionsFailed], done: int) -> list[str]:
    """The lines that a person sees of a run in which partitions failed."""
    lines: list[str] = []

    @dg.asset
    def fetched(context: dg.AssetExecutionContext) -> None:
        made = {f"2027-01-0{n + 1}": {"rows": 1} for n in range(done)}
        problem = retry_or_fail(context, made, failed)
        assert isinstance(problem, dg.Failure)
        lines.extend((problem.description or "").splitlines())

    dg.materialize([fetched], tags={DRIVER_TAG: "here:1"})
    return lines


def test_a_year_without_an_answer_is_one_line_with_its_count_and_range() -> None:
    lines = described([PartitionsFailed("square:a", (day,), gone(1 + n % 3)) for n, day in enumerate(YEAR)], 2)

    assert len(lines) == 2
    assert lines[0] == "fetched: 365 of 367 partitions failed (square:a); the others are complete and recorded."
    assert lines[1].endswith("[square:a: 365 business dates, 2026-01-01 to 2026-12-31]")


def test_where_nothing_is_complete_nothing_is_said_of_others() -> None:
    assert described([PartitionsFailed("square:a", tuple(YEAR[:11]), gone(1))], 0)[0] == (
        "fetched: 11 of 11 partitions failed (square:a)."
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_other_faults_and_other_connections_have_lines_of_their_own(reverse: bool) -> None:
    lost = PermissionLostError("it may not read orders", connection="square:a")
    failed = [
        PartitionsFailed("square:a", (YEAR[0], YEAR[1]), gone(1)),
        PartitionsFailed("square:a", (YEAR[5],), lost),
        PartitionsFailed("square:b", (YEAR[0],), gone(1)),
        PartitionsFailed("square:a", (YEAR[3],), gone(2)),
    ]
    found = by_reason(reversed(failed) if reverse else failed)

    assert {(one.connection, one.days) for one in found} == {
        ("square:a", (YEAR[0], YEAR[1], YEAR[3])),
        ("square:a", (YEAR[5],)),
        ("square:b", (YEAR[0],)),
    }
    first = next(one for one in found if len(one.days) == 3)
    assert str(first).endswith("[square:a: 3 business dates, 2026-01-01 to 2026-01-02, 2026-01-04]")


def test_a_failure_without_dates_names_its_connection_alone() -> None:
    assert str(PartitionsFailed("square:a", (), gone(1))).endswith("[square:a]")
