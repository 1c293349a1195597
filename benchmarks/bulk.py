"""Bulk operations: how long a backfill of a Shopify shop takes by them, and how long page by page."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta

from benchmarks.harness import ROOT, Contender, Run, Target, interleave, median, report

#: The last business date of the shop's history.
END = date(2026, 1, 31)
#: The connection's setting `bulk_days`: its default, and none at all.
BULK, PAGED = 4, 0
#: Points restored each second on Shopify's standard plan, of 2,000.
RESTORED = 100
#: Longer backfills are run once: page by page they take as long as their points take to come back, every time.
_SEVERAL_ROUNDS = 60


@contextmanager
def sandbox(days: int) -> Iterator[str]:
    """Run the sandbox with so many days of history for the length of a `with` block; gives where it answers."""
    options = {"history_days": days, "end_day": END.isoformat()}
    process = subprocess.Popen(
        [sys.executable, "-m", "flux_sandbox.server"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps({"port": 0, "options": options}) + "\n")
        process.stdin.flush()
        url = process.stdout.readline().strip()
        if not url.startswith("http"):
            raise RuntimeError(f"the sandbox did not start: {url}")
        yield url
    finally:
        process.stdin.close()  # it ends with its input
        process.wait()


def contender(name: str, url: str, days: int, bulk_days: int, restored: int = RESTORED) -> Contender:
    """Return a backfill of the last so many days of a shop whose plan restores so many points a second."""
    first = END - timedelta(days=days - 1)
    where = ("--url", url, "--work", "{work}", "--first-day", first.isoformat(), "--days", str(days))
    how = ("--bulk-days", str(bulk_days), "--restored", str(restored))
    return Contender(name, (sys.executable, "-m", "benchmarks.flux_shop", *where, *how), {"PYTHONWARNINGS": "ignore"})


def check_same(runs: Mapping[str, Sequence[Run]]) -> None:
    """Whoever stored other bytes, or made other rows of them, has not run the same race.

    Raises:
        RuntimeError: two runs differ, or one is not proven complete.

    """
    every = [one for done in runs.values() for one in done]
    for what in ("orders", "rows", "raw_digest", "rows_digest"):
        if len({one.facts[what] for one in every}) > 1:
            told = "; ".join(f"{one.contender}: {one.facts[what]}" for one in every)
            raise RuntimeError(f"the backfills differ in {what}: {told}")
    for one in every:
        if one.facts["proof"] != ["verified"] or one.facts["quarantined"]:
            raise RuntimeError(f"{one.contender} is not whole: {one.facts}")


def measure(days: int, rounds: int) -> bool:
    """Run both ways in turns, print what each took and cost, and tell whether the targets are met.

    Args:
        days: business dates to backfill.
        rounds: how often; a long backfill is run once.

    """
    with sandbox(days) as url:
        both = [
            contender("bulk operations", url, days, BULK),
            contender("page by page", url, days, PAGED),
        ]
        runs = interleave(both, rounds if days <= _SEVERAL_ROUNDS else 1)
    check_same(runs)
    bulk, paged = (runs[one.name] for one in both)
    facts = bulk[0].facts
    print(f"\n  {days} days, {facts['orders']:,} orders, {facts['rows']:,} rows: equal raw files, equal rows")
    print(
        f"  {'medians':<24} {'seconds':>8} {'requests':>9} {'points':>9} {'waited s':>9} {'throttled':>9} {'files':>6}"
    )
    for name, done in runs.items():
        middle = sorted(done, key=lambda one: one.seconds)[len(done) // 2]
        print(
            f"  {name:<24} {middle.seconds:8.2f} {middle.facts['requests']:9,} {middle.facts['points']:9,.0f} "
            f"{middle.facts['waited_for_points']:9.1f} {middle.facts['throttled']:9,} {middle.facts['files']:6,}"
        )
    targets = [
        Target("times as fast as page by page", median(paged, "seconds") / median(bulk, "seconds"), 3.0, at_most=False),
        Target(
            "of the points of page by page", bulk[0].facts["points"] / paged[0].facts["points"] * 100, 50, unit=" %"
        ),
    ]
    return report("bulk", runs, targets, {"days": days, "restored": RESTORED})
