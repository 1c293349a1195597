-- Toast menus (v2) -> rows of the `products` contract, without history. DuckDB SQL; see docs/add-a-provider.md.
--
-- One record is everything that a restaurant has published: menus of groups within groups of items, and beside them two
-- maps of modifier groups and options, which refer to each other by number, in circles too. The maps list each of them
-- once, so they are read as lists and never followed.
-- A product is known by its multiLocationId, which is the same in every restaurant and survives a publish; its GUID is
-- not. Where restaurants differ, the first one's word (by GUID) holds. What is on no menu any more is not here.

CREATE MACRO id_of(thing) AS coalesce(
    nullif(nullif(thing ->> 'multiLocationId', ''), 'null'), nullif(thing ->> 'guid', 'null')
);

CREATE MACRO price_of(thing) AS TRY_CAST(thing ->> 'price' AS DECIMAL(18,4));

CREATE MACRO listed(thing, name) AS coalesce(from_json(json_extract(thing, name), '["json"]'), []::JSON[]);

-- The values of a map, in the order of the numbers that are its keys.
CREATE MACRO mapped(thing, name) AS list_transform(
    list_sort(list_transform(coalesce(json_keys(json_extract(thing, name)), []), lambda k: lpad(k, 12, '0'))),
    lambda k: json_extract(thing, '$.' || name || '."' || coalesce(nullif(ltrim(k, '0'), ''), '0') || '"')
);

WITH RECURSIVE published AS (
    SELECT
        *,
        TRY_CAST(object ->> 'lastUpdated' AS TIMESTAMPTZ) AS published_at,
        mapped(object, 'modifierGroupReferences') AS modifier_groups,
        mapped(object, 'modifierOptionReferences') AS modifier_options
    FROM records
    WHERE kind = 'menu'
),

menus AS (
    SELECT
        location_id, unnest(listed(object, 'menus')) AS menu,
        generate_subscripts(listed(object, 'menus'), 1)::INTEGER AS position
    FROM published
),

-- Groups hold groups, as deep as the restaurant likes.
groups(location_id, one, place) AS (
    SELECT
        location_id, unnest(listed(menu, 'menuGroups')),
        [position, generate_subscripts(listed(menu, 'menuGroups'), 1)::INTEGER]
    FROM menus
    UNION ALL
    SELECT
        location_id, unnest(listed(one, 'menuGroups')),
        list_append(place, generate_subscripts(listed(one, 'menuGroups'), 1)::INTEGER)
    FROM groups
),

items AS (
    SELECT
        location_id, one ->> 'name' AS category, unnest(listed(one, 'menuItems')) AS item,
        list_append(place, generate_subscripts(listed(one, 'menuItems'), 1)::INTEGER) AS place
    FROM groups
),

-- An item whose price is by size has none of its own: its sizes are the options of one of its modifier groups.
sizes AS (
    SELECT
        i.location_id, i.item, i.category, i.place,
        unnest(listed(list_filter(
            p.modifier_groups, lambda g: g ->> 'guid' = i.item ->> '$.pricingRules.sizeSpecificPricingGuid'
        )[1], 'modifierOptionReferences')) AS number,
        p.modifier_options
    FROM items AS i JOIN published AS p USING (location_id)
    WHERE i.item ->> 'pricingStrategy' = 'SIZE_PRICE'
),

options AS (
    SELECT location_id, unnest(modifier_options) AS option, modifier_groups FROM published
),

found AS (
    SELECT
        location_id, 1 AS rank, place, id_of(item) AS product_id, NULL AS item_id, item ->> 'name' AS product_name,
        NULL AS variation, category, item ->> 'sku' AS sku, item ->> 'plu' AS upc, price_of(item) AS price,
        item AS record
    FROM items
    UNION ALL
    SELECT
        location_id, 2, place, id_of(item) || ':' || id_of(size), id_of(item), item ->> 'name', size ->> 'name',
        category, coalesce(size ->> 'sku', item ->> 'sku'), coalesce(size ->> 'plu', item ->> 'plu'), price_of(size), size
    FROM (
        SELECT *, list_filter(modifier_options, lambda o: o ->> 'referenceId' = number ->> '$')[1] AS size FROM sizes
    )
    WHERE size IS NOT NULL
    UNION ALL
    SELECT
        location_id, 3, [TRY_CAST(option ->> 'referenceId' AS INTEGER)], id_of(option), NULL, option ->> 'name', NULL,
        list_filter(modifier_groups, lambda g: list_contains(
            list_transform(listed(g, 'modifierOptionReferences'), lambda n: n ->> '$'), option ->> 'referenceId'
        ))[1] ->> 'name',
        option ->> 'sku', option ->> 'plu', price_of(option), option
    FROM options
)

SELECT
    p.connection,
    p.tenant,
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
    p.source_system,
    p.source_version,
    CASE WHEN f.product_id IS NULL THEN 'an item has neither multiLocationId nor guid' END AS problem,
    f.record::VARCHAR AS record
FROM found AS f JOIN published AS p USING (location_id) LEFT JOIN stores AS s USING (location_id)
QUALIFY f.product_id IS NULL
    OR row_number() OVER (PARTITION BY f.product_id ORDER BY f.rank, f.location_id, f.place, p.collected_at DESC) = 1;
