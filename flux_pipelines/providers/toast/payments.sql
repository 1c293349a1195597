-- Payments and refunds of Toast orders -> rows of the `payments` contract. DuckDB SQL; see docs/add-a-provider.md.
--
-- A payment is inside a check of its order; a refund is a member of the payment that it gives back, with the payment's
-- GUID, and stays with the order's business date. Several refunds of one payment are one sum at Toast.

CREATE MACRO dollars(amount) AS coalesce(TRY_CAST(amount AS DECIMAL(18,4)), 0);

-- Floats that were added up leave crumbs: rounded to the minor unit.
CREATE MACRO exact(amount, factor) AS CASE
    WHEN factor IS NULL THEN dollars(amount) ELSE (round(dollars(amount) / factor) * factor)::DECIMAL(18,4) END;

-- An order is long. Every look into one costs memory for the whole of it, so there are two, and only what they find goes
-- on to the payments.
WITH orders AS (
    SELECT
        connection, tenant, raw_date, source_system, source_version,
        json_extract_string(object, [
            '$.flux_location_id', '$.flux_currency', '$.guid', '$.modifiedDate', '$.openedDate', '$.createdDate',
            '$.createdInTestMode'
        ]) AS said,
        (object -> '$.checks[*].payments[*]')::JSON[] AS paid
    FROM records
    WHERE kind = 'order'
),

payments AS (
    SELECT
        connection, tenant, raw_date, source_system, source_version,
        said[1] AS store,
        said[2] AS currency,
        said[3] AS order_id,
        TRY_CAST(said[4] AS TIMESTAMPTZ) AS updated_at,
        coalesce(TRY_CAST(said[5] AS TIMESTAMPTZ), TRY_CAST(said[6] AS TIMESTAMPTZ)) AS begun_at,
        unnest(paid) AS payment
    FROM orders
    WHERE NOT coalesce(TRY_CAST(said[7] AS BOOLEAN), false)
),

judged AS (
    SELECT
        *,
        payment ->> 'guid' AS id,
        minor_unit(currency) AS factor,
        -- Only card payments have a status of their own. One that is not known here may have moved money: it waits.
        CASE
            WHEN json_type(payment -> 'voidInfo') = 'OBJECT' THEN 'canceled'
            WHEN coalesce(payment ->> 'paymentStatus', 'CAPTURED') = 'CAPTURED' THEN 'completed'
            WHEN payment ->> 'paymentStatus' IN ('VOIDED', 'CANCELLED') THEN 'canceled'
            WHEN payment ->> 'paymentStatus' IN ('DENIED', 'ERROR', 'ERROR_NETWORK') THEN 'failed'
            WHEN payment ->> 'type' = 'CREDIT' THEN 'pending'
            ELSE 'completed' END AS status,
        CASE
            WHEN payment ->> 'type' = 'CASH' THEN 'cash'
            WHEN payment ->> 'type' = 'CREDIT' THEN 'card'
            WHEN payment ->> 'type' IN ('GIFTCARD', 'TOAST_SV') THEN 'gift_card'
            ELSE 'other' END AS tender,
        coalesce(TRY_CAST(payment ->> 'paidDate' AS TIMESTAMPTZ), begun_at) AS paid_at
    FROM payments
),

sides AS (
    SELECT
        *, 'payment' AS row_kind, 1 AS sign, payment ->> 'amount' AS given, payment ->> 'tipAmount' AS given_tip,
        payment ->> 'originalProcessingFee' AS kept, paid_at AS moment
    FROM judged
    UNION ALL
    SELECT
        *, 'refund', -1, payment ->> '$.refund.refundAmount', payment ->> '$.refund.tipRefundAmount', NULL,
        coalesce(TRY_CAST(payment ->> '$.refund.refundDate' AS TIMESTAMPTZ), paid_at)
    FROM judged
    WHERE json_type(payment -> 'refund') = 'OBJECT'
        AND (dollars(payment ->> '$.refund.refundAmount') <> 0
            OR dollars(payment ->> '$.refund.tipRefundAmount') <> 0)
)

SELECT
    connection,
    tenant,
    store AS location_id,
    id AS payment_id,
    row_kind AS kind,
    order_id,
    CASE WHEN row_kind = 'refund' THEN id END AS source_payment_id,
    tender,
    coalesce(nullif(payment ->> 'cardType', ''), payment ->> 'type') AS tender_detail,
    CASE WHEN status IN ('canceled', 'failed') THEN 0 ELSE sign * exact(given, factor) END::DECIMAL(18,4) AS amount,
    CASE WHEN status IN ('canceled', 'failed') THEN 0 ELSE sign * exact(given_tip, factor) END::DECIMAL(18,4) AS tip,
    CASE WHEN status IN ('canceled', 'failed') THEN 0 ELSE -exact(kept, factor) END::DECIMAL(18,4) AS fee,
    currency,
    status,
    NULL::VARCHAR AS settlement_id,
    moment AS occurred_at,
    updated_at,
    raw_date AS business_date,
    raw_date,
    source_system,
    source_version,
    CASE
        WHEN id IS NULL THEN 'one of its payments has no guid'
        WHEN factor IS NULL THEN 'its currency is not one that ISO 4217 gives a minor unit'
        WHEN given IS NOT NULL AND TRY_CAST(given AS DECIMAL(18,4)) IS NULL THEN 'the amount of a payment is not a number'
    END AS problem,
    payment::VARCHAR AS record
FROM sides;
