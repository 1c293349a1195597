-- Shopify inventory levels -> rows of the `inventory_levels` contract (flux_pipelines/domain/tables). DuckDB SQL.
--
--   in   `records`  kind `level`: InventoryLevel with its quantities by name and its item
--   out  the contract's columns, `problem` and `record`
--
-- `quantity` is Shopify's `available`: what is on hand and not yet promised. An item that is not tracked is always in
-- stock and is not counted. An item whose variant is gone has nothing to be sold, and no row.

WITH read AS (
    SELECT
        *,
        object ->> '$.item.variant.legacyResourceId' AS product_id,
        list_filter((object -> '$.quantities[*]')::JSON[], lambda q: (q ->> '$.name') = 'available')[1] AS available,
        coalesce(object ->> '$.item.tracked', 'true') = 'true' AS tracked
    FROM records
    WHERE kind = 'level' AND (object ->> '$.item.variant.legacyResourceId') IS NOT NULL
)

SELECT
    location_id,
    product_id,
    nullif(object ->> '$.item.sku', '') AS sku,
    CASE WHEN tracked THEN TRY_CAST(available ->> '$.quantity' AS DECIMAL(18,5)) END AS quantity,
    CASE
        WHEN NOT tracked OR TRY_CAST(available ->> '$.quantity' AS DECIMAL(18,5)) > 0 THEN 'in_stock'
        ELSE 'out_of_stock'
    END AS availability,
    TRY_CAST(coalesce(available ->> '$.updatedAt', object ->> '$.updatedAt') AS TIMESTAMPTZ) AS counted_at,
    snapshot_at,
    raw_date AS business_date,
    CASE WHEN tracked AND TRY_CAST(available ->> '$.quantity' AS DECIMAL(18,5)) IS NULL
        THEN 'it is tracked and has no quantity `available`' END AS problem,
    object::VARCHAR AS record
FROM read;
