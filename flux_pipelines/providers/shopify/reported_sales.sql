-- Shopify's own sales report -> rows of the `reported_sales` contract (flux_pipelines/domain/tables). DuckDB SQL.
--
--   in   `records`  kind `reported` (a row of ShopifyQL's `sales` by location), `nothing_reported`, and `no_witness` and
--                   `no_witness_yet` with a `reason`; `stores`
--   out  the contract's columns, `problem` and `record`
--
-- `net_sales` is after discounts and returns, before tax, and without shipping, which is told apart (help.shopify.com, the
-- sales reports) and is revenue here. Discounts are negative there. The report has no tips.

CREATE MACRO amount(o, member) AS TRY_CAST(o ->> member AS DECIMAL(18,4));

WITH read AS (
    SELECT r.*, s.currency, r.kind IN ('reported', 'nothing_reported') AS reported
    FROM records AS r
    LEFT JOIN stores AS s ON s.location_id = r.location_id
),

judged AS (
    SELECT
        *,
        CASE
            WHEN currency IS NULL THEN 'its location is not known'
            WHEN kind = 'reported' AND amount(object, 'net_sales') IS NULL THEN 'it has no net_sales that can be read'
            WHEN NOT reported AND (object ->> 'reason') IS NULL THEN 'it does not say why there is no report'
        END AS problem
    FROM read
)

SELECT
    location_id,
    raw_date AS business_date,
    currency,
    CASE WHEN reported THEN 'reported' ELSE 'no_witness' END AS status,
    object ->> 'reason' AS reason,
    CASE WHEN reported
        THEN (coalesce(amount(object, 'net_sales'), 0) + coalesce(amount(object, 'shipping_charges'), 0))::DECIMAL(18,4)
    END AS net,
    amount(object, 'taxes') AS tax,
    -amount(object, 'discounts') AS discounts,
    amount(object, 'returns') AS "returns",
    problem,
    CASE WHEN problem IS NOT NULL THEN object::VARCHAR END AS record
FROM judged;
