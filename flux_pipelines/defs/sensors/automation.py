"""What keeps tables up to date: Dagster's sensors that evaluate the assets' automation conditions."""

from __future__ import annotations

import dagster as dg

from flux_pipelines.defs import names
from flux_pipelines.domain.tables import RESTATEMENTS, SETTLED_ORDERS


def automation_sensors() -> list[dg.AutomationConditionSensorDefinition]:
    """Return the sensors that bring the tables up to date. Dagster's own default one starts stopped.

    They look often, because what a webhook announces has a minute to get from the provider to core `transactions`. That
    table and what is made of it have a queue of their own: a run costs seconds before it does anything, and a sale must
    not wait for those of payments, stock and the tie-out, which the same event asks for.
    """
    sold = dg.AssetSelection.assets(
        names.TRANSACTIONS,
        names.DAILY_SALES,
        names.DAILY_ITEM_DEMAND,
        *(dg.AssetKey(table.name) for table in (RESTATEMENTS, SETTLED_ORDERS)),
    )
    return [
        dg.AutomationConditionSensorDefinition(
            name,
            target=target,
            description=description,
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=5,
            run_tags={names.AUTOMATION_TAG: queue, names.PRIORITY_TAG: priority},
        )
        for name, target, description, queue, priority in (
            (
                "keep_core_tables_up_to_date",
                sold,
                "Brings exactly the partitions of core `transactions`, and of what is made of it, up to date whose upstream "
                "has changed.",
                "core",
                names.FRESH,
            ),
            (
                "keep_books_up_to_date",
                dg.AssetSelection.all() - sold,
                "Brings exactly the partitions of the other tables up to date whose upstream has changed: payments, stock, "
                "products, time entries, the tie-out.",
                "books",
                names.SOON,
            ),
        )
    ]
