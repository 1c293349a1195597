-- Toast restaurants -> rows of the `locations` contract. DuckDB SQL; see docs/add-a-provider.md.

SELECT
    r.object ->> 'guid' AS location_id,
    coalesce(
        s.name, nullif(r.object ->> '$.general.name', ''), r.object ->> 'guid'
    ) AS name,
    coalesce(r.object ->> '$.general.timeZone', s.timezone) AS timezone,
    coalesce(r.object ->> '$.general.currencyCode', s.currency) AS currency,
    nullif(r.object ->> '$.location.country', '') AS country,
    nullif(r.object ->> '$.location.city', '') AS city,
    -- Toast's own default is 4 in the morning (developer guide, "Restaurant business date").
    coalesce(TRY_CAST(r.object ->> '$.general.closeoutHour' AS INTEGER), 4) AS cutoff_hour,
    NOT coalesce(TRY_CAST(r.object ->> '$.general.archived' AS BOOLEAN), false) AS active,
    CASE
        WHEN r.object ->> 'guid' IS NULL THEN 'it has no guid'
        WHEN coalesce(r.object ->> '$.general.timeZone', s.timezone) IS NULL THEN 'it has no time zone'
    END AS problem,
    r.object::VARCHAR AS record
FROM records AS r LEFT JOIN stores AS s ON s.location_id = r.object ->> 'guid'
WHERE r.kind = 'location';
