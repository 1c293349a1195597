-- Square's catalog -> rows of the `products` contract (flux_pipelines/domain/tables), one a variation. DuckDB SQL.
--
--   in   `records`  kinds `item`, `item_variation`, `category` (CatalogObject); `stores`; `minor_unit(code)`
--   out  the contract's columns with `changed_at` for the period of validity, `problem` and `record`
--
-- Facts about the fields: Square's OpenAPI description (2025-08-20), schemas CatalogObject, CatalogItem,
-- CatalogItemVariation, CatalogObjectCategory. A variation comes twice, inside its item (the engine
-- gives it apart from that) and by itself; a deleted one only by itself. Prices of single locations (`location_overrides`) are not the list price and are left out.

CREATE MACRO is_true(o, path) AS coalesce((o ->> path) = 'true', false);

-- The locations, of those given, where an object is sold; one that says nothing about locations is sold at all of them.
CREATE MACRO places_of(locations, everywhere, present, absent) AS list_filter(
    locations, lambda place: CASE WHEN everywhere = 'false' THEN list_contains(present, place)
        ELSE NOT list_contains(absent, place) END
);

-- A list of texts inside an object.
CREATE MACRO listed(json) AS coalesce(TRY_CAST(json AS JSON)::VARCHAR[], []);

WITH places AS MATERIALIZED (
    SELECT coalesce(list(location_id), []) AS ids FROM stores
),

objects AS MATERIALIZED (
    SELECT
        part_number, collected_at, object ->> '$.id' AS id, object ->> '$.type' AS type,
        whole(object ->> '$.version') AS version,
        CASE WHEN (object ->> '$.id') IS NULL THEN object::VARCHAR END AS unnamed
    FROM records
    WHERE kind IN ('item', 'item_variation', 'category')
),

newest AS MATERIALIZED (
    SELECT part_number, id, type
    FROM objects
    QUALIFY row_number() OVER (
        PARTITION BY id, unnamed ORDER BY collected_at DESC, version DESC NULLS LAST
    ) = 1
),

-- An item has a description of any length: one look into it gives all that is needed of it.
looked_at AS (
    SELECT
        n.id,
        json_extract_string(r.object, [
            '$.item_data.name', '$.item_data.reporting_category.id', '$.item_data.categories[0].id',
            '$.item_data.category_id', '$.updated_at', '$.is_deleted', '$.item_data.is_archived',
            '$.present_at_all_locations', '$.present_at_location_ids', '$.absent_at_location_ids'
        ]) AS said
    FROM records AS r JOIN newest AS n USING (part_number)
    WHERE n.type = 'ITEM'
),

items AS MATERIALIZED (
    SELECT
        id,
        said[1] AS name,
        coalesce(said[2], said[3], said[4]) AS category_id,
        TRY_CAST(said[5] AS TIMESTAMPTZ) AS updated_at,
        coalesce(said[6], '') = 'true' OR coalesce(said[7], '') = 'true' AS is_gone,
        places_of(places.ids, said[8], listed(said[9]), listed(said[10])) AS places
    FROM looked_at CROSS JOIN places
),

categories AS MATERIALIZED (
    SELECT
        n.id,
        r.object ->> '$.category_data.name' AS name,
        TRY_CAST(r.object ->> '$.updated_at' AS TIMESTAMPTZ) AS updated_at
    FROM records AS r JOIN newest AS n USING (part_number)
    WHERE n.type = 'CATEGORY'
),

variations AS (
    SELECT r.*, n.id, n.type, places.ids
    FROM records AS r JOIN newest AS n USING (part_number) CROSS JOIN places
    WHERE n.type = 'ITEM_VARIATION' OR n.type IS NULL
),

sold AS (
    SELECT
        v.*,
        v.object ->> '$.item_variation_data.item_id' AS item_id,
        coalesce(i.is_gone, false) AS item_is_gone,
        i.name AS item_name,
        i.updated_at AS item_updated_at,
        c.name AS category,
        c.updated_at AS category_updated_at,
        v.object ->> '$.item_variation_data.name' AS variation,
        v.object ->> '$.item_variation_data.price_money.amount' AS price_text,
        v.object ->> '$.item_variation_data.price_money.currency' AS currency,
        coalesce(v.object ->> '$.item_variation_data.pricing_type', '') = 'VARIABLE_PRICING' AS is_open_price,
        -- Without any store known there is none that it could be missing from.
        len(v.ids) = 0 OR len(places_of(
            coalesce(i.places, v.ids), v.object ->> '$.present_at_all_locations',
            listed(v.object ->> '$.present_at_location_ids'), listed(v.object ->> '$.absent_at_location_ids')
        )) > 0 AS is_somewhere
    FROM variations AS v
    LEFT JOIN items AS i ON i.id = v.object ->> '$.item_variation_data.item_id'
    LEFT JOIN categories AS c ON c.id = i.category_id
),

judged AS (
    SELECT
        *,
        NOT is_open_price AND price_text IS NOT NULL AS is_priced,
        CASE
            WHEN id IS NULL OR type IS NULL THEN 'it has no id or no type'
            WHEN is_open_price OR price_text IS NULL THEN NULL
            WHEN whole(price_text) IS NULL THEN 'its price is not a whole number of minor units'
            ELSE no_currency(currency)
        END AS problem
    FROM sold
)

SELECT
    id AS product_id,
    item_id,
    coalesce(nullif(item_name, ''), nullif(variation, ''), 'Unnamed item') AS product_name,
    nullif(variation, '') AS variation,
    category,
    nullif(object ->> '$.item_variation_data.sku', '') AS sku,
    nullif(object ->> '$.item_variation_data.upc', '') AS upc,
    CASE WHEN problem IS NULL AND is_priced THEN whole(price_text) END AS price,
    CASE WHEN is_priced THEN currency END AS currency,
    NOT is_true(object, '$.is_deleted')
        AND NOT item_is_gone
        AND coalesce(object ->> '$.item_variation_data.sellable', 'true') <> 'false'
        AND is_somewhere AS active,
    -- A new name of the item or its category changes the row as well.
    greatest(TRY_CAST(object ->> '$.updated_at' AS TIMESTAMPTZ), item_updated_at, category_updated_at) AS changed_at,
    problem,
    CASE WHEN problem IS NOT NULL THEN object::VARCHAR END AS record
FROM judged;
