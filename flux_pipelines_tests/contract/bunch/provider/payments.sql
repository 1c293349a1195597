-- Bunch keeps payments and refunds inside the order -> rows of the `payments` contract.
WITH sides AS (
    SELECT *, 'payment' AS side, unnest(from_json(object -> '$.payments.elements', '["json"]')) AS p FROM records
    UNION ALL
    SELECT *, 'refund', unnest(from_json(object -> '$.refunds.elements', '["json"]')) FROM records
),

read AS (
    SELECT
        *,
        make_timestamptz(TRY_CAST(p ->> 'createdTime' AS BIGINT) * 1000) AS made_at,
        CASE p ->> 'result' WHEN 'SUCCESS' THEN 'completed' WHEN 'FAIL' THEN 'failed' WHEN 'VOIDED' THEN 'canceled' ELSE 'pending' END AS said,
        -- Refunds are negative, and what moved no money is zero.
        CASE WHEN said <> 'completed' THEN 0 WHEN side = 'refund' THEN -1 ELSE 1 END AS sign
    FROM sides
)

SELECT
    object ->> 'merchantId' AS location_id,
    p ->> 'id' AS payment_id,
    side AS kind,
    object ->> 'id' AS order_id,
    p ->> '$.payment.id' AS source_payment_id,
    CASE p ->> '$.tender.labelKey' WHEN 'wallet' THEN 'card' ELSE p ->> '$.tender.labelKey' END AS tender,
    p ->> '$.tender.labelKey' AS tender_detail,
    sign * TRY_CAST(p ->> 'amount' AS BIGINT) AS amount,
    -- What is not told is nothing; what cannot be read stays NULL, which the contract refuses.
    sign * TRY_CAST(coalesce(p ->> 'tipAmount', '0') AS BIGINT) AS tip,
    -TRY_CAST(coalesce(p ->> 'processingFee', '0') AS BIGINT) AS fee,
    object ->> 'currency' AS currency,
    said AS status,
    made_at AS occurred_at,
    business_date_of(object ->> 'merchantId', made_at) AS business_date,
    raw_date,
    CASE WHEN minor_unit(object ->> 'currency') IS NULL THEN 'its currency is not in ISO 4217' END AS problem,
    p::VARCHAR AS record
FROM read;
