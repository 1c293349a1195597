-- Toast menus (v2) -> rows of the `products` contract, without history. DuckDB SQL; see docs/add-a-provider.md.
--
-- One record is everything that a restaurant has published: menus of groups within groups of items, and beside them two
-- maps of modifier groups and options, which refer to each other by number, in circles too. The engine gives them apart:
-- kinds `menu` (what is left of the record), `group`, `item` (whose `part_of` is its group), `modifier_group` and
-- `modifier_option`. The maps list each of those once, so they are read as lists and never followed.
-- A product is known by its multiLocationId, which is the same in every restaurant and survives a publish; its GUID is
-- not. Where restaurants differ, the first one's word (by GUID) holds. What is on no menu any more is not here.

CREATE MACRO id_of(thing) AS coalesce(
    nullif(nullif(thing ->> 'multiLocationId', ''), 'null'), nullif(thing ->> 'guid', 'null')
);

CREATE MACRO price_of(thing) AS TRY_CAST(thing ->> 'price' AS DECIMAL(18,4));

WITH published AS (
    SELECT
        location_id, collected_at,
        TRY_CAST(object ->> 'lastUpdated' AS TIMESTAMPTZ) AS published_at
    FROM records
    WHERE kind = 'menu'
),

groups AS (
    SELECT part_number, object ->> 'name' AS name FROM records WHERE kind = 'group'
),

items AS (
    SELECT i.location_id, g.name AS category, i.part_number, i.object AS item
    FROM records AS i JOIN groups AS g ON g.part_number = i.part_of
    WHERE i.kind = 'item'
),

-- Which options a modifier group has, by their numbers.
listed AS MATERIALIZED (
    SELECT
        location_id, part_number, object ->> 'guid' AS guid, object ->> 'name' AS name,
        unnest((object ->> '$.modifierOptionReferences[*]')::VARCHAR[]) AS reference
    FROM records
    WHERE kind = 'modifier_group'
),

options AS MATERIALIZED (
    SELECT location_id, part_number, object ->> 'referenceId' AS reference, object AS option
    FROM records
    WHERE kind = 'modifier_option'
),

-- The first group that an option is in.
grouped AS (
    SELECT location_id, reference, arg_min(name, part_number) AS name FROM listed GROUP BY location_id, reference
),

found AS (
    SELECT
        location_id, 1 AS rank, part_number, id_of(item) AS product_id, NULL AS item_id, item ->> 'name' AS product_name,
        NULL AS variation, category, item ->> 'sku' AS sku, item ->> 'plu' AS upc, price_of(item) AS price,
        CASE WHEN id_of(item) IS NULL THEN item END AS record
    FROM items
    UNION ALL
    -- An item whose price is by size has none of its own: its sizes are the options of one of its modifier groups.
    SELECT
        i.location_id, 2, i.part_number, id_of(item) || ':' || id_of(option), id_of(item), item ->> 'name', option ->> 'name',
        category, coalesce(option ->> 'sku', item ->> 'sku'), coalesce(option ->> 'plu', item ->> 'plu'),
        price_of(option), CASE WHEN id_of(item) IS NULL OR id_of(option) IS NULL THEN option END
    FROM items AS i
    JOIN listed AS l ON l.location_id = i.location_id AND l.guid = (i.item ->> '$.pricingRules.sizeSpecificPricingGuid')
    JOIN options AS o ON o.location_id = l.location_id AND o.reference = l.reference
    WHERE i.item ->> 'pricingStrategy' = 'SIZE_PRICE'
    UNION ALL
    SELECT
        o.location_id, 3, o.part_number, id_of(option), NULL, option ->> 'name', NULL, g.name, option ->> 'sku', option ->> 'plu',
        price_of(option), CASE WHEN id_of(option) IS NULL THEN option END
    FROM options AS o LEFT JOIN grouped AS g ON g.location_id = o.location_id AND g.reference = o.reference
)

SELECT
    f.product_id,
    f.item_id,
    coalesce(nullif(f.product_name, ''), 'Unnamed item') AS product_name,
    nullif(f.variation, '') AS variation,
    nullif(f.category, '') AS category,
    nullif(f.sku, '') AS sku,
    nullif(f.upc, '') AS upc,
    f.price,
    s.currency,
    true AS active,
    p.published_at AS changed_at,
    CASE WHEN f.product_id IS NULL THEN 'an item has neither multiLocationId nor guid' END AS problem,
    f.record::VARCHAR AS record
FROM found AS f JOIN published AS p USING (location_id) LEFT JOIN stores AS s USING (location_id)
QUALIFY f.product_id IS NULL
    OR row_number() OVER (PARTITION BY f.product_id ORDER BY f.rank, f.location_id, f.part_number, p.collected_at DESC) = 1;
