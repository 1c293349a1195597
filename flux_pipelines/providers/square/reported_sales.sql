-- Square's own sales report -> rows of the `reported_sales` contract (flux_pipelines/domain/tables). DuckDB SQL.
--
--   in   `records`  kind `reported` (a row of the Reporting API's answer, cube Orders), `nothing_reported`, and `no_witness`
--                   and `no_witness_yet` with a `reason`; `stores`
--   out  the contract's columns, `problem` and `record`
--
-- Amounts are decimal units, as text (developer.squareup.com/docs/reporting-api/core-cubes). A member's name begins with
-- that of its cube. `net_sales` is after discounts and returns, and before tax.

CREATE MACRO said(o, member) AS list_extract(list_transform(
    list_filter(json_keys(o), lambda k: k = member OR k LIKE '%.' || member),
    lambda k: json_extract_string(o, '$."' || k || '"')
), 1);

CREATE MACRO amount(o, member) AS TRY_CAST(said(o, member) AS DECIMAL(18,4));

WITH read AS (
    SELECT r.*, s.currency
    FROM records AS r
    LEFT JOIN stores AS s ON s.location_id = r.location_id
),

judged AS (
    SELECT
        *,
        kind IN ('reported', 'nothing_reported') AS reported,
        CASE
            WHEN currency IS NULL THEN 'its location is not known'
            WHEN kind = 'reported' AND amount(object, 'net_sales') IS NULL THEN 'it has no net_sales that can be read'
            WHEN kind LIKE 'no_witness%' AND (object ->> '$.reason') IS NULL THEN 'it does not say why there is no report'
        END AS problem
    FROM read
)

SELECT
    connection,
    tenant,
    location_id,
    raw_date AS business_date,
    currency,
    CASE WHEN reported THEN 'reported' ELSE 'no_witness' END AS status,
    object ->> '$.reason' AS reason,
    CASE WHEN reported THEN coalesce(amount(object, 'net_sales'), 0) END AS net,
    amount(object, 'sales_tax_amount') AS tax,
    amount(object, 'tips_amount') AS tips,
    amount(object, 'discounts_amount') AS discounts,
    amount(object, 'itemized_returns') AS "returns",
    source_system,
    source_version,
    problem,
    CASE WHEN problem IS NOT NULL THEN object::VARCHAR END AS record
FROM judged;
