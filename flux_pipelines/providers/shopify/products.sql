-- Shopify products -> rows of the `products` contract (flux_pipelines/domain/tables). DuckDB SQL.
--
--   in   `records`  kind `product` (Product), kind `variant` (ProductVariant, its `part_of` is the product)
--   out  the contract's columns without valid_from and valid_to, `changed_at`, `problem` and `record`
--
-- One row a variant: it is what is sold and counted. A product without options has one variant, "Default Title". A
-- catalog is complete: what is deleted is missing from the next one, and closed by the engine. Records of kind `deletion`
-- say since when, of a product as a whole. A product may have 2,048 variants: the engine gives them apart from it.

WITH products AS MATERIALIZED (
    SELECT
        part_number,
        object,
        object ->> '$.legacyResourceId' AS item_id,
        object ->> '$.title' AS product_name,
        coalesce(nullif(object ->> '$.productType', ''), object ->> '$.category.name') AS category,
        -- An unlisted product is not shown, but sold to whoever has its address (`ProductStatus`).
        (object ->> '$.status') IN ('ACTIVE', 'UNLISTED') AS active,
        TRY_CAST(object ->> '$.updatedAt' AS TIMESTAMPTZ) AS updated_at
    FROM records
    WHERE kind = 'product'
),

variants AS (
    SELECT part_of, object AS variant FROM records WHERE kind = 'variant'
),

shop AS (
    SELECT max(currency) AS currency FROM stores
)

SELECT
    variant ->> '$.legacyResourceId' AS product_id,
    item_id,
    product_name,
    nullif(variant ->> '$.title', 'Default Title') AS variation,
    category,
    nullif(variant ->> '$.sku', '') AS sku,
    nullif(variant ->> '$.barcode', '') AS upc,
    exact(variant ->> '$.price') AS price,
    shop.currency AS currency,
    active,
    greatest(updated_at, TRY_CAST(variant ->> '$.updatedAt' AS TIMESTAMPTZ)) AS changed_at,
    CASE
        WHEN variant IS NULL THEN 'the product has no variant, so there is nothing to sell'
        WHEN (variant ->> '$.price') IS NOT NULL AND exact(variant ->> '$.price') IS NULL
            THEN 'its price is not a number of at most 4 decimal places'
    END AS problem,
    coalesce(variant, object)::VARCHAR AS record
FROM products LEFT JOIN variants ON variants.part_of = products.part_number CROSS JOIN shop;
