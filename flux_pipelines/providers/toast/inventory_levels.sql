-- Toast stock -> rows of the `inventory_levels` contract. DuckDB SQL; see docs/add-a-provider.md.
--
-- Toast keeps no stock ledger: an item is in stock (not counted), out of stock, or counted down (stock API 1.0.0). Items
-- that are simply in stock are here because they were asked for by name; one whose validity is INVALID is not the
-- restaurant's. A status that is not known here stops no sale.

SELECT
    location_id,
    coalesce(
        nullif(nullif(object ->> 'multiLocationId', ''), 'null'), nullif(object ->> 'guid', 'null')
    ) AS product_id,
    CASE WHEN object ->> 'status' = 'QUANTITY' THEN TRY_CAST(object ->> 'quantity' AS DECIMAL(18,5)) END AS quantity,
    CASE
        WHEN object ->> 'status' = 'OUT_OF_STOCK' THEN 'out_of_stock'
        WHEN object ->> 'status' = 'QUANTITY' AND TRY_CAST(object ->> 'quantity' AS DECIMAL(18,5)) <= 0 THEN 'out_of_stock'
        WHEN object ->> 'status' = 'QUANTITY' THEN 'limited'
        ELSE 'in_stock'
    END AS availability,
    snapshot_at,
    raw_date AS business_date,
    CASE
        WHEN nullif(object ->> 'guid', 'null') IS NULL AND nullif(object ->> 'multiLocationId', 'null') IS NULL
            THEN 'it is stock of no item'
    END AS problem,
    object::VARCHAR AS record
FROM records
WHERE kind = 'stock' AND coalesce(object ->> 'itemGuidValidity', 'VALID') <> 'INVALID';
