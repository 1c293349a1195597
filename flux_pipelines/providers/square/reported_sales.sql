-- Square's own sales report -> rows of the `reported_sales` contract (flux_pipelines/domain/tables). DuckDB SQL.
--
--   in   `reports()`  kind `reported` (a row of the Reporting API's answer, cube Orders), `nothing_reported`, and `no_witness`
--                   and `no_witness_yet` with a `reason`
--   out  the contract's columns, `problem` and `record`
--
-- A store's date is a row, or one an hour, which add up. Amounts are decimal units, as text
-- (developer.squareup.com/docs/reporting-api/core-cubes). A member's name begins with that of its cube. `net_sales` is after
-- discounts and returns, and before tax.

CREATE MACRO said(o, member) AS list_extract(list_transform(
    list_filter(json_keys(o), lambda k: k = member OR k LIKE '%.' || member),
    lambda k: json_extract_string(o, '$."' || k || '"')
), 1);

CREATE MACRO amount(o, member) AS TRY_CAST(said(o, member) AS DECIMAL(18,4));

CREATE MACRO whole_sum(o, member) AS CASE WHEN count(amount(o, member)) = count(*) THEN sum(amount(o, member)) END;

WITH judged AS (
    SELECT
        *,
        coalesce(lacking, CASE WHEN kind = 'reported' AND amount(object, 'net_sales') IS NULL THEN 'it has no net_sales that can be read' END) AS problem
    FROM reports()
),

-- A figure that one of the rows does not have is not known, and a row that cannot be read makes the store's date unreadable.
added_up AS (
    SELECT
        location_id,
        raw_date,
        currency,
        reported,
        status,
        reason,
        sum(amount(object, 'net_sales')) AS net,
        whole_sum(object, 'sales_tax_amount') AS tax,
        whole_sum(object, 'tips_amount') AS tips,
        whole_sum(object, 'discounts_amount') AS discounts,
        whole_sum(object, 'itemized_returns') AS "returns",
        max(problem) AS problem,
        any_value(CASE WHEN problem IS NOT NULL THEN object::VARCHAR END) AS record
    FROM judged
    GROUP BY ALL
)

SELECT
    location_id,
    raw_date AS business_date,
    currency,
    status,
    reason,
    CASE WHEN reported THEN coalesce(net, 0)::DECIMAL(18,4) END AS net,
    tax::DECIMAL(18,4) AS tax,
    tips::DECIMAL(18,4) AS tips,
    discounts::DECIMAL(18,4) AS discounts,
    "returns"::DECIMAL(18,4) AS "returns",
    problem,
    record
FROM added_up;
