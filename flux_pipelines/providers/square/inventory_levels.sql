-- Square's inventory counts -> rows of the `inventory_levels` contract (flux_pipelines/domain/tables). DuckDB SQL.
--
--   in   `records`  kind `count` (InventoryCount of Square's OpenAPI description), as received
--   out  the contract's columns, `problem` and `record`
--
-- Only IN_STOCK is what can be sold. A quantity is text, with up to five decimals, and below zero when more was sold than
-- had been counted.

WITH counts AS (
    SELECT
        *,
        object ->> '$.catalog_object_id' AS product_id,
        object ->> '$.quantity' AS said,
        CASE WHEN regexp_full_match(object ->> '$.quantity', '-?[0-9]{1,13}([.][0-9]{1,5}0*)?')
            THEN (object ->> '$.quantity')::DECIMAL(18,5) END AS quantity
    FROM records
    WHERE kind = 'count' AND coalesce(object ->> '$.state', 'IN_STOCK') = 'IN_STOCK'
)

SELECT
    connection,
    tenant,
    coalesce(object ->> '$.location_id', location_id) AS location_id,
    product_id,
    NULL::VARCHAR AS sku,
    quantity,
    CASE WHEN quantity > 0 THEN 'in_stock' ELSE 'out_of_stock' END AS availability,
    TRY_CAST(object ->> '$.calculated_at' AS TIMESTAMPTZ) AS counted_at,
    snapshot_at,
    raw_date AS business_date,
    source_system,
    source_version,
    CASE
        WHEN product_id IS NULL THEN 'it has no catalog_object_id'
        WHEN said IS NULL THEN 'it has no quantity'
        WHEN quantity IS NULL THEN 'its quantity is not a number of at most 5 decimal places'
    END AS problem,
    CASE WHEN problem IS NOT NULL THEN object::VARCHAR END AS record
FROM counts;
