"""When the core tables are brought up to date without anybody asking."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import dagster as dg

from flux_pipelines.pipelines.names import DAILY_SALES

#: Forecasts are made and evaluated by themselves for days this near to the newest partition: the day that has just
#: closed somewhere, and those that were late. Older ones are for a person to ask for.
LATEST = timedelta(days=7)


def when_upstream_changes(*, written_alone: bool = True) -> dg.AutomationCondition[Any]:
    """Return the condition of the tables: exactly the partitions whose upstream changed, however old they are.

    Not `eager()`: that looks only at the latest partition, so a late edit of an older day would be ignored, and it
    waits while any upstream partition is missing, so one silent connection would hold back every other one's day.

    Args:
        written_alone: see `_changed`.

    """
    return _at_rest(_changed(None, written_alone=written_alone).with_label("upstream changed"))


def when_its_day_closes() -> dg.AutomationCondition[Any]:
    """Return the condition of forecasts and their evaluation: the sales of that very day were brought up to date.

    They read hundreds of days of demand; an update of any of those must not make every forecast after it again.
    """
    closed = _changed(dg.AssetSelection.assets(DAILY_SALES), written_alone=True).with_label(
        "its day was brought up to date"
    )
    return _at_rest(closed) & dg.AutomationCondition.in_latest_time_window(LATEST)


def _at_rest(changed: dg.AutomationCondition[Any]) -> dg.AutomationCondition[Any]:
    return changed & ~dg.AutomationCondition.any_deps_in_progress() & ~dg.AutomationCondition.in_progress()


def _changed(upstream: dg.AssetSelection | None, *, written_alone: bool) -> dg.OrAutomationCondition[Any]:
    """Return the condition that upstream changed and this was not asked for since, or is being asked for right now.

    A change is remembered until then: one that comes while a run is under way would be forgotten by
    `any_deps_updated()`, which knows the last tick alone. The parts below keep the times of events (a combination like
    `any_deps_updated()` does not), so that of two events between ticks the later one counts.

    Args:
        upstream: the assets that count; all by default.
        written_alone: no run can write upstream while another writes this table, so a table that was written after
            its upstream needs nothing more. (Dagster's own test for runs that wrote both looks only at the last
            partition of a run.) Otherwise only being asked for counts: one run too many, but no change is lost.

    """
    updated = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.newly_updated())
    asked = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.will_be_requested())
    if upstream is not None:
        updated, asked = updated.allow(upstream), asked.allow(upstream)
    remembered: dg.AutomationCondition[Any] = updated.since(dg.AutomationCondition.newly_requested())
    if written_alone:
        remembered = remembered & updated.since(dg.AutomationCondition.newly_updated())
    return remembered | asked
