-- Bunch's merchant, which is a store -> a row of the `locations` contract.
SELECT
    object ->> 'id' AS location_id,
    object ->> 'name' AS name,
    object ->> '$.properties.timezone' AS timezone,
    object ->> '$.properties.defaultCurrency' AS currency,
    object ->> '$.address.country' AS country,
    object ->> '$.address.city' AS city,
    cutoff_hour,
    true AS active,
    object::VARCHAR AS record
FROM records
WHERE kind = 'store';
