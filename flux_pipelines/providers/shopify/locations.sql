-- Shopify's shop and locations -> rows of the `locations` contract (flux_pipelines/domain/tables). DuckDB SQL.
--
--   in   `records`  kind `shop` (the web shop, which has no place), kind `location`; the table `stores`
--   out  the contract's columns, `problem` and `record`
--
-- A location has no zone and no currency of its own at Shopify: they are the shop's, and come from `stores`.

SELECT
    r.location_id AS location_id,
    coalesce(stores.name, r.object ->> '$.name') AS name,
    coalesce(stores.timezone, r.object ->> '$.ianaTimezone') AS timezone,
    coalesce(stores.currency, r.object ->> '$.currencyCode') AS currency,
    r.object ->> '$.address.countryCode' AS country,
    nullif(r.object ->> '$.address.city', '') AS city,
    r.cutoff_hour,
    r.kind = 'shop' OR coalesce(r.object ->> '$.isActive', 'true') = 'true' AS active,
    CASE WHEN coalesce(stores.timezone, r.object ->> '$.ianaTimezone') IS NULL
        THEN 'a location that the connection does not know yet: refresh its locations' END AS problem,
    r.object::VARCHAR AS record
FROM records AS r
LEFT JOIN stores ON stores.location_id = r.location_id
WHERE r.kind = 'location' OR (
    r.kind = 'shop' AND r.location_id NOT IN (SELECT l.location_id FROM records AS l WHERE l.kind = 'location')
);
