-- Square's catalogue -> rows of the `products` contract (flux_pipelines/domain/tables), one a variation. DuckDB SQL.
--
--   in   `records`  kinds `item`, `item_variation`, `category` (CatalogObject), as received; `stores`; `minor_unit(code)`
--   out  the contract's columns with `changed_at` for the period of validity, `problem` and `record`
--
-- Facts about the fields: Square's OpenAPI description (2025-08-20), schemas CatalogObject, CatalogItem,
-- CatalogItemVariation, CatalogObjectCategory. A variation comes twice, inside its item and by itself; a deleted one only by
-- itself. Prices of single locations (`location_overrides`) are not the list price and are left out.

CREATE MACRO whole(t) AS CASE WHEN regexp_full_match(t, '-?[0-9]{1,14}') THEN t::BIGINT END;

CREATE MACRO is_true(o, path) AS coalesce((o ->> path) = 'true', false);

-- Whether an object is sold at a location; one that says nothing about locations is sold at all of them.
CREATE MACRO is_present(o, location_id) AS CASE
    WHEN (o ->> '$.present_at_all_locations') = 'false'
        THEN list_contains(coalesce((o ->> '$.present_at_location_ids[*]')::VARCHAR[], []), location_id)
    ELSE NOT list_contains(coalesce((o ->> '$.absent_at_location_ids[*]')::VARCHAR[], []), location_id) END;

WITH objects AS (
    SELECT object, connection, tenant, source_system, source_version, collected_at
    FROM records
    WHERE kind IN ('item', 'item_variation', 'category')
    UNION ALL
    SELECT unnest(object -> '$.item_data.variations[*]'), connection, tenant, source_system, source_version, collected_at
    FROM records
    WHERE kind = 'item'
),

newest AS (
    SELECT *, object ->> '$.id' AS id, object ->> '$.type' AS type
    FROM objects
    QUALIFY row_number() OVER (
        PARTITION BY connection, id, CASE WHEN id IS NULL THEN object::VARCHAR END
        ORDER BY collected_at DESC, whole(object ->> '$.version') DESC NULLS LAST
    ) = 1
),

items AS (
    SELECT
        connection,
        id,
        object,
        object ->> '$.item_data.name' AS name,
        coalesce(
            object ->> '$.item_data.reporting_category.id', object ->> '$.item_data.categories[0].id',
            object ->> '$.item_data.category_id'
        ) AS category_id,
        TRY_CAST(object ->> '$.updated_at' AS TIMESTAMPTZ) AS updated_at
    FROM newest
    WHERE type = 'ITEM'
),

categories AS (
    SELECT
        connection,
        id,
        object ->> '$.category_data.name' AS name,
        TRY_CAST(object ->> '$.updated_at' AS TIMESTAMPTZ) AS updated_at
    FROM newest
    WHERE type = 'CATEGORY'
),

sold AS (
    SELECT
        v.*,
        v.object ->> '$.item_variation_data.item_id' AS item_id,
        i.object AS item,
        i.name AS item_name,
        i.updated_at AS item_updated_at,
        c.name AS category,
        c.updated_at AS category_updated_at,
        v.object ->> '$.item_variation_data.name' AS variation,
        v.object ->> '$.item_variation_data.price_money.amount' AS price_text,
        v.object ->> '$.item_variation_data.price_money.currency' AS currency,
        coalesce(v.object ->> '$.item_variation_data.pricing_type', '') = 'VARIABLE_PRICING' AS is_open_price,
        -- Without any store known there is none that it could be missing from.
        NOT EXISTS (SELECT 1 FROM stores) OR EXISTS (
            SELECT 1 FROM stores AS s
            WHERE is_present(v.object, s.location_id) AND is_present(coalesce(i.object, '{}'::JSON), s.location_id)
        ) AS is_somewhere
    FROM newest AS v
    LEFT JOIN items AS i ON i.connection = v.connection AND i.id = v.object ->> '$.item_variation_data.item_id'
    LEFT JOIN categories AS c ON c.connection = i.connection AND c.id = i.category_id
    WHERE v.type = 'ITEM_VARIATION' OR v.type IS NULL
),

judged AS (
    SELECT
        *,
        minor_unit(currency) AS factor,
        NOT is_open_price AND price_text IS NOT NULL AS is_priced,
        CASE
            WHEN id IS NULL OR type IS NULL THEN 'it has no id or no type'
            WHEN is_open_price OR price_text IS NULL THEN NULL
            WHEN whole(price_text) IS NULL THEN 'its price is not a whole number of minor units'
            WHEN currency IS NULL OR minor_unit(currency) IS NULL THEN 'its currency ' || coalesce(currency, '(none)')
                || ' is not one that ISO 4217 gives a minor unit'
        END AS problem
    FROM sold
)

SELECT
    connection,
    tenant,
    id AS product_id,
    item_id,
    coalesce(nullif(item_name, ''), nullif(variation, ''), 'Unnamed item') AS product_name,
    nullif(variation, '') AS variation,
    category,
    nullif(object ->> '$.item_variation_data.sku', '') AS sku,
    nullif(object ->> '$.item_variation_data.upc', '') AS upc,
    CASE WHEN problem IS NULL AND is_priced THEN (whole(price_text) * factor)::DECIMAL(18,4) END AS price,
    CASE WHEN is_priced THEN currency END AS currency,
    NOT is_true(object, '$.is_deleted')
        AND NOT coalesce(is_true(item, '$.is_deleted'), false)
        AND NOT coalesce(is_true(item, '$.item_data.is_archived'), false)
        AND coalesce(object ->> '$.item_variation_data.sellable', 'true') <> 'false'
        AND is_somewhere AS active,
    -- A new name of the item or its category changes the row as well.
    greatest(TRY_CAST(object ->> '$.updated_at' AS TIMESTAMPTZ), item_updated_at, category_updated_at) AS changed_at,
    source_system,
    source_version,
    problem,
    CASE WHEN problem IS NOT NULL THEN object::VARCHAR END AS record
FROM judged;
