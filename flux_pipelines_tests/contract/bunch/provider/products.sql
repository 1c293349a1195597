-- Bunch's goods -> rows of the `products` contract; they are priced in the store's currency.
SELECT
    object ->> 'id' AS product_id,
    object ->> '$.itemGroup.id' AS item_id,
    object ->> 'name' AS product_name,
    nullif(object ->> 'alternateName', '') AS variation,
    object ->> '$.categories.elements[0].name' AS category,
    nullif(object ->> 'sku', '') AS sku,
    nullif(object ->> 'code', '') AS upc,
    TRY_CAST(object ->> 'price' AS BIGINT) AS price,
    stores.currency,
    NOT coalesce((object ->> 'deleted')::BOOLEAN, false) AS active,
    make_timestamptz(TRY_CAST(object ->> 'modifiedTime' AS BIGINT) * 1000) AS changed_at,
    object::VARCHAR AS record
FROM records CROSS JOIN stores
WHERE kind = 'item';
