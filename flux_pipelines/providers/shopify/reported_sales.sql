-- Shopify's own sales report -> rows of the `reported_sales` contract (flux_pipelines/domain/tables). DuckDB SQL.
--
--   in   `reports()`  kind `reported` (a row of ShopifyQL's `sales` by location), `nothing_reported`, and `no_witness` and
--                   `no_witness_yet` with a `reason`
--   out  the contract's columns, `problem` and `record`
--
-- `net_sales` is after discounts and returns, before tax, and without shipping, which is told apart (help.shopify.com, the
-- sales reports) and is revenue here. Discounts are negative there. The report has no tips.

CREATE MACRO amount(o, member) AS TRY_CAST(o ->> member AS DECIMAL(18,4));

WITH judged AS (
    SELECT
        *,
        coalesce(lacking, CASE WHEN kind = 'reported' AND amount(object, 'net_sales') IS NULL THEN 'it has no net_sales that can be read' END) AS problem
    FROM reports()
)

SELECT
    location_id,
    raw_date AS business_date,
    currency,
    status,
    reason,
    CASE WHEN reported
        THEN (coalesce(amount(object, 'net_sales'), 0) + coalesce(amount(object, 'shipping_charges'), 0))::DECIMAL(18,4)
    END AS net,
    amount(object, 'taxes') AS tax,
    -amount(object, 'discounts') AS discounts,
    amount(object, 'returns') AS "returns",
    problem,
    CASE WHEN problem IS NOT NULL THEN object::VARCHAR END AS record
FROM judged;
