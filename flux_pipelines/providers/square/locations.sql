-- Square's locations -> rows of the `locations` contract (flux_pipelines/domain/tables). DuckDB SQL.
--
--   in   `records`  kind `location` (Location of Square's OpenAPI description), as received
--   out  the contract's columns, `problem` and `record`

SELECT
    object ->> '$.id' AS location_id,
    coalesce(nullif(object ->> '$.name', ''), object ->> '$.id') AS name,
    object ->> '$.timezone' AS timezone,
    object ->> '$.currency' AS currency,
    coalesce(object ->> '$.country', object ->> '$.address.country') AS country,
    object ->> '$.address.locality' AS city,
    cutoff_hour,
    -- ACTIVE or INACTIVE; a value that is new is not a closed store.
    coalesce(object ->> '$.status', 'ACTIVE') <> 'INACTIVE' AS active,
    CASE
        WHEN object ->> '$.id' IS NULL THEN 'it has no id'
        WHEN coalesce(object ->> '$.timezone', '') = '' THEN 'it has no time zone'
        WHEN coalesce(object ->> '$.currency', '') = '' THEN 'it has no currency'
    END AS problem,
    CASE WHEN problem IS NOT NULL THEN object::VARCHAR END AS record
FROM records
WHERE kind = 'location';
