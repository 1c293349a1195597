"""When the core tables are brought up to date without anybody asking."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import dagster as dg

#: Days this near to the newest partition do not wait until nothing is written upstream: with many stores open, webhooks
#: keep bringing something in. Older days change in backfills, and wait for their end.
RECENT = timedelta(days=4)


def when_upstream_changes(*, written_alone: bool = True) -> dg.AutomationCondition[Any]:
    """Return the condition of the tables: exactly the partitions whose upstream changed, however old they are.

    Not `eager()`: that looks only at the latest partition, so a late edit of an older day would be ignored, and it
    waits while any upstream partition is missing, so one silent connection would hold back every other one's day.

    Args:
        written_alone: see `_changed`.

    """
    changed = _changed(written_alone=written_alone).with_label("upstream changed")
    at_rest: dg.AutomationCondition[Any] = ~dg.AutomationCondition.any_deps_in_progress()
    if not written_alone:
        at_rest = at_rest | dg.AutomationCondition.in_latest_time_window(RECENT)
    condition: dg.AutomationCondition[Any] = changed & at_rest & ~dg.AutomationCondition.in_progress()
    return condition


def _changed(*, written_alone: bool) -> dg.OrAutomationCondition[Any]:
    """Return the condition that upstream changed and this was not asked for since, or is being asked for right now.

    A change is remembered until then: one that comes while a run is under way would be forgotten by
    `any_deps_updated()`, which knows the last tick alone. The parts below keep the times of events (a combination like
    `any_deps_updated()` does not), so that of two events between ticks the later one counts.

    Args:
        written_alone: no run can write upstream while another writes this table, so a table that was written after
            its upstream needs nothing more. (Dagster's own test for runs that wrote both looks only at the last
            partition of a run.) Otherwise only being asked for counts: one run too many, but no change is lost.

    """
    updated = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.newly_updated())
    asked = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.will_be_requested())
    remembered: dg.AutomationCondition[Any] = updated.since(dg.AutomationCondition.newly_requested())
    if written_alone:
        remembered = remembered & updated.since(dg.AutomationCondition.newly_updated())
    return remembered | asked
