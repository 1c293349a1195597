"""Who worked when."""

from __future__ import annotations

from flux_pipelines.domain.tables.columns import SOURCE, WHERE
from flux_pipelines.domain.tables.model import Column, Table

TIME_ENTRIES = Table(
    name="time_entries",
    grain="one row a period worked",
    description="When people worked. No names: an employee is an id.",
    columns=(
        *WHERE,
        Column("time_entry_id", "text", "The entry, by the provider's own id."),
        Column("employee_id", "text", "The person, by the provider's own id."),
        Column("job_title", "text", "The job worked.", required=False),
        Column("clock_in", "instant", "Begin of work, UTC."),
        Column("clock_out", "instant", "End of work, UTC; empty while it goes on.", required=False),
        Column("unpaid_break_minutes", "quantity", "Breaks that are not paid."),
        Column("paid_hours", "quantity", "Hours to be paid; empty while work goes on.", required=False),
        Column("hourly_wage", "money", "Wage an hour, when the provider gives it.", required=False),
        Column("declared_cash_tips", "money", "Cash tips that the person declared.", required=False),
        Column("currency", "text", "ISO 4217 code of wage and tips."),
        Column("status", "text", "`open`, `closed` or `deleted`.", allowed=("open", "closed", "deleted")),
        Column("business_date", "date", "The location's business date of the begin of work."),
        *SOURCE,
    ),
    key=("connection", "time_entry_id"),
    partition_by=("connection", "business_date"),
)
