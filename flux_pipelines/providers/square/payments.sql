-- Square payments and refunds -> rows of the `payments` contract (flux_pipelines/domain/tables). DuckDB SQL.
--
--   in   `records`  kind `payment` (Payment), `refund` (PaymentRefund), and `refunded_payment`: the Payment that a refund
--                    of the same partition gives back, where it is of another date
--        `minor_unit(code)`  the exact factor from minor units, NULL for an unknown currency
--   out  the contract's columns, `problem` (NULL for a good row) and `record`
--
-- Facts about the fields: Square's OpenAPI description (2025-08-20), schemas Payment, PaymentRefund, DestinationDetails,
-- ProcessingFee. What a
-- payment is of changes over the years, so no value of an enum is a problem: an unknown one counts as pending or `other`,
-- and is told in `tender_detail`.

-- Digits only: a cast would round 12.5 cents without a word.
CREATE MACRO whole(t) AS CASE WHEN regexp_full_match(t, '-?[0-9]{1,14}') THEN t::BIGINT END;

CREATE MACRO amount_of(o, path) AS whole(o ->> (path || '.amount'));

CREATE MACRO is_spoilt(o, path) AS
    coalesce(json_type(o, path) NOT IN ('OBJECT', 'NULL'), false)
    OR ((o ->> (path || '.amount')) IS NOT NULL AND amount_of(o, path) IS NULL);

-- What Square keeps; a fee that is given back with a refund is below zero.
CREATE MACRO processing_fees(o) AS coalesce(list_sum(list_transform(
    (o -> '$.processing_fee[*].amount_money.amount')::VARCHAR[], lambda a: whole(a)
))::BIGINT, 0::BIGINT);

CREATE MACRO tender_of(source, brand) AS CASE
    WHEN brand = 'SQUARE_GIFT_CARD' THEN 'gift_card'
    WHEN source IN ('CARD', 'WALLET') THEN 'card'
    WHEN source = 'CASH' THEN 'cash'
    ELSE 'other' END;

CREATE MACRO source_of(o) AS o ->> '$.source_type';

CREATE MACRO brand_of(o) AS coalesce(
    o ->> '$.card_details.card.card_brand', o ->> '$.destination_details.card_details.card.card_brand',
    o ->> '$.wallet_details.brand', o ->> '$.buy_now_pay_later_details.brand', o ->> '$.external_details.type',
    o ->> '$.destination_details.external_details.type', o ->> '$.bank_account_details.transfer_type'
);

WITH refunded AS (
    SELECT
        object ->> '$.id' AS refunded_id,
        raw_date AS refunded_with,
        any_value(struct_pack(source := source_of(object), brand := brand_of(object))) AS refunded
    FROM records
    WHERE kind IN ('payment', 'refunded_payment')
    GROUP BY refunded_id, refunded_with
),

read AS (
    SELECT
        *,
        object ->> '$.id' AS id,
        object ->> '$.status' AS said,
        -- Where a refund went it says itself only if that is elsewhere than where the payment came from
        -- (`destination_details`, or another type); `destination_type` alone calls a gift card CARD, and may be missing.
        kind = 'refund' AND refunded IS NOT NULL AND (object -> '$.destination_details') IS NULL
            AND coalesce(object ->> '$.destination_type' = refunded.source, true) AS went_back,
        CASE
            WHEN kind = 'payment' THEN source_of(object)
            WHEN went_back THEN refunded.source
            ELSE object ->> '$.destination_type'
        END AS source,
        CASE WHEN went_back THEN refunded.brand ELSE brand_of(object) END AS brand,
        amount_of(object, '$.amount_money') AS amount,
        coalesce(amount_of(object, '$.tip_money'), 0) AS tip,
        -- What the app takes that made the payment comes off it as Square's own fee does; of a refund it is what the app
        -- gives back (`app_fee_money` of Payment and of PaymentRefund).
        processing_fees(object) + coalesce(amount_of(object, '$.external_details.source_fee_money'), 0)
            + CASE kind WHEN 'payment' THEN 1 ELSE -1 END * coalesce(amount_of(object, '$.app_fee_money'), 0) AS fee,
        coalesce(object ->> '$.amount_money.currency', object ->> '$.total_money.currency') AS currency,
        -- A till that was offline makes the payment when it is back: the sale was before.
        TRY_CAST(coalesce(
            object ->> '$.offline_payment_details.client_created_at', object ->> '$.created_at'
        ) AS TIMESTAMPTZ) AS occurred_at,
        is_spoilt(object, '$.amount_money') OR is_spoilt(object, '$.tip_money')
            OR is_spoilt(object, '$.external_details.source_fee_money') OR is_spoilt(object, '$.app_fee_money')
            OR len(list_filter(
                (object -> '$.processing_fee[*].amount_money.amount')::VARCHAR[], lambda a: whole(a) IS NULL
            )) > 0 AS spoilt,
        len(list_filter(
            list_concat(
                (object -> '$.processing_fee[*].amount_money')::VARCHAR[],
                [
                    (object -> '$.tip_money')::VARCHAR, (object -> '$.external_details.source_fee_money')::VARCHAR,
                    (object -> '$.app_fee_money')::VARCHAR
                ]
            ),
            lambda m: m::JSON ->> '$.currency' <> object ->> '$.amount_money.currency'
        )) > 0 AS in_two_currencies
    FROM records LEFT JOIN refunded
        ON kind = 'refund' AND refunded_id = object ->> '$.payment_id' AND refunded_with = raw_date
    WHERE kind IN ('payment', 'refund')
),

judged AS (
    SELECT
        *,
        minor_unit(currency) AS factor,
        CASE
            WHEN said = 'COMPLETED' THEN 'completed'
            WHEN said = 'CANCELED' THEN 'canceled'
            WHEN said IN ('FAILED', 'REJECTED') THEN 'failed'
            ELSE 'pending'
        END AS status,
        CASE kind WHEN 'payment' THEN 1 ELSE -1 END AS sign,
        coalesce(said, '') NOT IN ('COMPLETED', 'CANCELED', 'FAILED', 'REJECTED', 'APPROVED', 'PENDING') AS is_new_status
    FROM read
),

placed AS (
    SELECT
        *,
        -- What moved no money counts for nothing, whatever it was to be.
        CASE WHEN status IN ('canceled', 'failed') THEN 0 ELSE 1 END AS moved,
        CASE
            WHEN id IS NULL THEN 'it has no id'
            WHEN occurred_at IS NULL THEN 'it has no created_at that can be read'
            WHEN spoilt THEN 'an amount is not a whole number of minor units'
            WHEN currency IS NULL OR factor IS NULL THEN 'its currency ' || coalesce(currency, '(none)')
                || ' is not one that ISO 4217 gives a minor unit'
            WHEN in_two_currencies THEN 'its amounts are in two currencies'
            WHEN amount IS NULL AND status NOT IN ('canceled', 'failed') THEN 'it has no amount'
        END AS problem
    FROM judged
)

SELECT
    connection,
    tenant,
    coalesce(object ->> '$.location_id', location_id) AS location_id,
    id AS payment_id,
    kind,
    object ->> '$.order_id' AS order_id,
    CASE kind WHEN 'refund' THEN nullif(object ->> '$.payment_id', '') END AS source_payment_id,
    tender_of(source, brand) AS tender,
    nullif(concat_ws(' ', source, brand, CASE WHEN is_new_status THEN '(' || coalesce(said, 'no status') || ')' END), '')
        AS tender_detail,
    CASE WHEN problem IS NULL THEN (moved * sign * coalesce(amount, 0) * factor)::DECIMAL(18,4) END AS amount,
    CASE WHEN problem IS NULL THEN (moved * sign * tip * factor)::DECIMAL(18,4) END AS tip,
    CASE WHEN problem IS NULL THEN (moved * -fee * factor)::DECIMAL(18,4) END AS fee,
    currency,
    status,
    NULL::VARCHAR AS settlement_id,
    occurred_at,
    TRY_CAST(object ->> '$.updated_at' AS TIMESTAMPTZ) AS updated_at,
    -- A payment counts on the date it happened, which is that of its partition.
    raw_date AS business_date,
    raw_date,
    source_system,
    source_version,
    problem,
    CASE WHEN problem IS NOT NULL THEN object::VARCHAR END AS record
FROM placed;
