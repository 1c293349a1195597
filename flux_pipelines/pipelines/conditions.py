"""When the core tables are brought up to date without anybody asking."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import dagster as dg

from flux_pipelines.pipelines.names import DAILY_SALES

#: Forecasts are made and evaluated by themselves for days this near to the newest partition: the day that has just
#: closed somewhere, and those that were late. Older ones are for a person to ask for.
LATEST = timedelta(days=7)


def when_upstream_changes() -> dg.AutomationCondition[Any]:
    """Return the condition of the core tables: exactly the partitions whose upstream changed, however old they are.

    Not `eager()`: that looks only at the latest partition, so a late edit of an older day would be ignored, and it
    waits while any upstream partition is missing, so one silent connection would hold back every other one's day.
    """
    condition = (
        dg.AutomationCondition.any_deps_updated()
        & ~dg.AutomationCondition.any_deps_in_progress()
        & ~dg.AutomationCondition.in_progress()
    )
    return condition.with_label("upstream changed and is at rest")


def when_its_day_closes() -> dg.AutomationCondition[Any]:
    """Return the condition of forecasts and their evaluation: the sales of that very day were brought up to date.

    They read hundreds of days of demand; an update of any of those must not make every forecast after it again.
    """
    condition = (
        dg.AutomationCondition.any_deps_updated().allow(dg.AssetSelection.assets(DAILY_SALES))
        & ~dg.AutomationCondition.any_deps_in_progress()
        & ~dg.AutomationCondition.in_progress()
        & dg.AutomationCondition.in_latest_time_window(LATEST)
    )
    return condition.with_label("its day was brought up to date")
