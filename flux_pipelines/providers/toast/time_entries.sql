-- Toast time entries -> rows of the `time_entries` contract. DuckDB SQL; see docs/add-a-provider.md.
--
-- An entry names its job and its employee by GUID; jobs come beside them, employees are never fetched.

CREATE MACRO instant(value) AS TRY_CAST(value AS TIMESTAMPTZ);

WITH jobs AS (
    SELECT location_id, object ->> 'guid' AS guid, any_value(object ->> 'title') AS title
    FROM records
    WHERE kind = 'job'
    GROUP BY ALL
),

entries AS (
    SELECT
        *,
        instant(object ->> 'inDate') AS begun,
        instant(object ->> 'outDate') AS ended,
        coalesce(list_sum(list_transform(
            list_filter(
                from_json(object -> 'breaks', '["json"]'),
                lambda b: NOT coalesce(TRY_CAST(b ->> 'paid' AS BOOLEAN), false)
                    AND NOT coalesce(TRY_CAST(b ->> 'missed' AS BOOLEAN), false)
            ),
            lambda b: coalesce(
                date_diff('millisecond', instant(b ->> 'inDate'), instant(b ->> 'outDate')), 0)::DECIMAL(28,5) / 60000
        )), 0)::DECIMAL(18,5) AS unpaid
    FROM records
    WHERE kind = 'time_entry'
)

SELECT
    e.location_id,
    e.object ->> 'guid' AS time_entry_id,
    e.object ->> '$.employeeReference.guid' AS employee_id,
    j.title AS job_title,
    e.begun AS clock_in,
    e.ended AS clock_out,
    e.unpaid AS unpaid_break_minutes,
    -- Toast's hours are without unpaid breaks.
    CASE WHEN e.ended IS NULL THEN NULL ELSE coalesce(
        TRY_CAST(e.object ->> 'regularHours' AS DECIMAL(18,5))
            + coalesce(TRY_CAST(e.object ->> 'overtimeHours' AS DECIMAL(18,5)), 0),
        (date_diff('millisecond', e.begun, e.ended)::DECIMAL(28,5) / 3600000 - e.unpaid / 60)::DECIMAL(18,5)
    ) END AS paid_hours,
    TRY_CAST(e.object ->> 'hourlyWage' AS DECIMAL(18,4)) AS hourly_wage,
    TRY_CAST(e.object ->> 'declaredCashTips' AS DECIMAL(18,4)) AS declared_cash_tips,
    s.currency,
    CASE
        WHEN coalesce(TRY_CAST(e.object ->> 'deleted' AS BOOLEAN), false) THEN 'deleted'
        WHEN e.ended IS NULL THEN 'open'
        ELSE 'closed'
    END AS status,
    coalesce(TRY_CAST(strptime(e.object ->> 'businessDate', '%Y%m%d') AS DATE), e.raw_date) AS business_date,
    instant(e.object ->> 'modifiedDate') AS changed_at,
    CASE
        WHEN e.object ->> 'guid' IS NULL THEN 'it has no guid'
        WHEN e.begun IS NULL THEN 'it has no begin'
        WHEN e.object ->> '$.employeeReference.guid' IS NULL THEN 'it names no employee'
    END AS problem,
    e.object::VARCHAR AS record
FROM entries AS e
    LEFT JOIN jobs AS j ON j.location_id = e.location_id AND j.guid = e.object ->> '$.jobReference.guid'
    LEFT JOIN stores AS s ON s.location_id = e.location_id;
