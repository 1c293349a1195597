-- Square's timecards -> rows of the `time_entries` contract (flux_pipelines/domain/tables). DuckDB SQL.
--
--   in   `records`  kind `time_entry` (Timecard of Square's OpenAPI description), as received; `stores`; `minor_unit(code)`
--   out  the contract's columns, `problem` and `record`
--
-- Times are whole minutes with the offset of the location. A break that is not paid takes its real length off; one that
-- goes on still takes nothing off yet.

CREATE MACRO seconds_between(a, b) AS
    date_diff('second', TRY_CAST(a AS TIMESTAMPTZ), TRY_CAST(b AS TIMESTAMPTZ));

CREATE MACRO unpaid_seconds(o) AS coalesce(list_sum(list_transform(
    list_filter((o -> '$.breaks[*]')::JSON[], lambda b: (b ->> '$.is_paid') = 'false'),
    lambda b: seconds_between(b ->> '$.start_at', b ->> '$.end_at')
))::BIGINT, 0::BIGINT);

-- n / d to five decimals, in integers: halves up.
CREATE MACRO fraction(n, d) AS
    (((n::HUGEINT * 100000 * 2 + d) // (2 * d))::BIGINT * 0.00001::DECIMAL(6,5))::DECIMAL(18,5);

WITH cards AS (
    SELECT
        r.*,
        r.object ->> '$.id' AS id,
        TRY_CAST(r.object ->> '$.start_at' AS TIMESTAMPTZ) AS clock_in,
        TRY_CAST(r.object ->> '$.end_at' AS TIMESTAMPTZ) AS clock_out,
        coalesce(r.object ->> '$.status', '') AS said,
        r.object ->> '$.wage.hourly_rate.amount' AS wage_text,
        r.object ->> '$.declared_cash_tip_money.amount' AS tips_text,
        coalesce(
            r.object ->> '$.wage.hourly_rate.currency', r.object ->> '$.declared_cash_tip_money.currency', s.currency
        ) AS currency,
        coalesce(
            r.object ->> '$.declared_cash_tip_money.currency' <> r.object ->> '$.wage.hourly_rate.currency', false
        ) AS in_two_currencies,
        unpaid_seconds(r.object) AS unpaid
    FROM records AS r
    LEFT JOIN stores AS s ON s.location_id = coalesce(r.object ->> '$.location_id', r.location_id)
    WHERE r.kind = 'time_entry'
),

judged AS (
    SELECT
        *,
        minor_unit(currency) AS factor,
        -- A status that is new is told from whether the work has ended.
        CASE WHEN said = 'OPEN' OR (said <> 'CLOSED' AND clock_out IS NULL) THEN 'open' ELSE 'closed' END AS status,
        date_diff('second', clock_in, clock_out) - unpaid AS paid,
        CASE
            WHEN id IS NULL THEN 'it has no id'
            WHEN coalesce(object ->> '$.team_member_id', '') = '' THEN 'it names nobody'
            WHEN clock_in IS NULL THEN 'it has no start_at that can be read'
            WHEN clock_out < clock_in THEN 'it ends before it begins'
            WHEN said = 'CLOSED' AND clock_out IS NULL THEN 'it is closed but has no end_at that can be read'
            WHEN (wage_text IS NOT NULL AND whole(wage_text) IS NULL)
                OR (tips_text IS NOT NULL AND whole(tips_text) IS NULL)
                THEN 'an amount is not a whole number of minor units'
            WHEN factor IS NULL THEN no_currency(currency)
            WHEN in_two_currencies THEN 'its amounts are in two currencies'
        END AS problem
    FROM cards
)

SELECT
    coalesce(object ->> '$.location_id', location_id) AS location_id,
    id AS time_entry_id,
    object ->> '$.team_member_id' AS employee_id,
    nullif(object ->> '$.wage.title', '') AS job_title,
    clock_in,
    clock_out,
    fraction(unpaid, 60) AS unpaid_break_minutes,
    CASE WHEN status = 'closed' THEN fraction(greatest(paid, 0), 3600) END AS paid_hours,
    CASE WHEN problem IS NULL THEN whole(wage_text) END AS hourly_wage,
    CASE WHEN problem IS NULL THEN whole(tips_text) END AS declared_cash_tips,
    currency,
    status,
    raw_date AS business_date,
    problem,
    CASE WHEN problem IS NOT NULL THEN object::VARCHAR END AS record
FROM judged;
