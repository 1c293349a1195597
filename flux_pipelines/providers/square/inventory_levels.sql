-- Square's inventory counts -> rows of the `inventory_levels` contract (flux_pipelines/domain/tables). DuckDB SQL.
--
--   in   `records`  kind `count` (InventoryCount of Square's OpenAPI description) and `sold_out` (CatalogObject, a variation
--                    with such a mark), as received; `stores`, the connection's locations
--   out  the contract's columns, `problem` and `record`
--
-- Only IN_STOCK is what can be sold. A quantity is text, with up to five decimals, and below zero when more was sold than
-- had been counted.
--
-- What a seller marks as sold out cannot be sold, whatever was counted, and need not be counted at all
-- (ItemVariationLocationOverrides: "The seller can manually set the item variation as sold out even when the inventory
-- count is greater than zero"; it ends at `sold_out_valid_until`). `quantity` stays what was counted: that it is to be
-- treated as none is what `availability` says.

WITH counts AS (
    SELECT
        *,
        coalesce(object ->> '$.location_id', location_id) AS place,
        object ->> '$.catalog_object_id' AS product_id,
        object ->> '$.quantity' AS said,
        CASE WHEN regexp_full_match(object ->> '$.quantity', '-?[0-9]{1,13}([.][0-9]{1,5}0*)?')
            THEN (object ->> '$.quantity')::DECIMAL(18,5) END AS quantity,
        TRY_CAST(object ->> '$.calculated_at' AS TIMESTAMPTZ) AS counted_at
    FROM records
    WHERE kind = 'count' AND coalesce(object ->> '$.state', 'IN_STOCK') = 'IN_STOCK'
),

overrides AS (
    SELECT *, unnest(object -> '$.item_variation_data.location_overrides[*]') AS override
    FROM records
    WHERE kind = 'sold_out'
),

marks AS (
    SELECT *, override ->> '$.location_id' AS place, object ->> '$.id' AS product_id
    FROM overrides
    WHERE override ->> '$.sold_out' = 'true'
        AND coalesce(TRY_CAST(override ->> '$.sold_out_valid_until' AS TIMESTAMPTZ) > snapshot_at, true)
        AND place IN (SELECT location_id FROM stores)
),

levels AS (
    SELECT
        counts.*,
        EXISTS (
            SELECT 1 FROM marks
            WHERE marks.place = counts.place AND marks.product_id = counts.product_id
                AND marks.snapshot_at = counts.snapshot_at
        ) AS sold_out,
        CASE
            WHEN product_id IS NULL THEN 'it has no catalog_object_id'
            WHEN said IS NULL THEN 'it has no quantity'
            WHEN quantity IS NULL THEN 'its quantity is not a number of at most 5 decimal places'
        END AS problem
    FROM counts
    UNION ALL BY NAME
    SELECT
        * EXCLUDE (override),
        true AS sold_out,
        CASE WHEN product_id IS NULL THEN 'it is marked as sold out and has no id' END AS problem
    FROM marks
    WHERE NOT EXISTS (
        SELECT 1 FROM counts
        WHERE counts.place = marks.place AND counts.product_id = marks.product_id
            AND counts.snapshot_at = marks.snapshot_at AND counts.quantity IS NOT NULL
    )
)

SELECT
    place AS location_id,
    product_id,
    quantity,
    CASE WHEN quantity > 0 AND NOT sold_out THEN 'in_stock' ELSE 'out_of_stock' END AS availability,
    counted_at,
    snapshot_at,
    raw_date AS business_date,
    problem,
    CASE WHEN problem IS NOT NULL THEN object::VARCHAR END AS record
FROM levels;
