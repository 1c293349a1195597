-- Toast's own sales report -> rows of the `reported_sales` contract (flux_pipelines/domain/tables). DuckDB SQL.
--
--   in   `reports()`  kind `reported` (a row of the analytics API's aggregated sales report), `nothing_reported`, and
--                   `no_witness` and `no_witness_yet` with a `reason`
--   out  the contract's columns, `problem` and `record`
--
-- `netSalesAmount` is "the total sales, excluding tax, gratuity, tips, discounts, and deferred amounts"; refunds count on the
-- day of the refund (devguide, "Understanding aggregated sales reporting data"; platform guide, "Viewing refunds in Toast
-- reports"), as positive amounts. The report has neither tax nor tips.

CREATE MACRO amount(o, member) AS round(TRY_CAST(o ->> member AS DECIMAL(18,4)), 2)::DECIMAL(18,4);

WITH judged AS (
    SELECT
        *,
        coalesce(lacking, CASE WHEN kind = 'reported' AND amount(object, 'netSalesAmount') IS NULL THEN 'it has no netSalesAmount that can be read' END) AS problem
    FROM reports()
)

SELECT
    location_id,
    raw_date AS business_date,
    currency,
    status,
    reason,
    CASE WHEN reported THEN coalesce(amount(object, 'netSalesAmount'), 0) END AS net,
    amount(object, 'discountAmount') AS discounts,
    -amount(object, 'refundAmount') AS "returns",
    problem,
    CASE WHEN problem IS NOT NULL THEN object::VARCHAR END AS record
FROM judged;
