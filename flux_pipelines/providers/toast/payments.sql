-- Payments and refunds of Toast orders -> rows of the `payments` contract. DuckDB SQL; see docs/add-a-provider.md.
--
-- A payment is inside a check of its order, and counts on the business date on which it was "first applied"
-- (`paidBusinessDate`); a refund is a member of the payment that it gives back, with the payment's GUID, and counts on the
-- one "on which this refund was created" (`refundBusinessDate`; orders API 2.9.0). Several refunds of one payment are one sum
-- at Toast, with the last one's date. A check or order that is deleted was emptied: its payments, which it goes on naming,
-- are in the check that they were moved to.

CREATE MACRO dollars(amount) AS coalesce(TRY_CAST(amount AS DECIMAL(18,4)), 0);

-- Floats that were added up leave crumbs: rounded to the minor unit.
CREATE MACRO rounded(amount, factor) AS CASE
    WHEN factor IS NULL THEN dollars(amount) ELSE (round(dollars(amount) / factor) * factor)::DECIMAL(18,4) END;

-- Toast's integer `yyyyMMdd`.
CREATE MACRO date_in(number) AS try_strptime(number, '%Y%m%d')::DATE;

-- An order is long. Every look into one costs memory for the whole of it, so there are two, and only what they find goes
-- on to the payments.
WITH orders AS (
    SELECT
        raw_date,
        json_extract_string(object, [
            '$.flux_location_id', '$.flux_currency', '$.guid', '$.modifiedDate', '$.openedDate', '$.createdDate',
            '$.createdInTestMode', '$.excessFood', '$.deleted'
        ]) AS said,
        flatten(list_transform(
            list_filter(
                json_extract(object, '$.checks[*]'), lambda c: NOT coalesce(TRY_CAST(c ->> 'deleted' AS BOOLEAN), false)
            ),
            lambda c: json_extract(c, '$.payments[*]')
        )) AS paid
    FROM records
    WHERE kind = 'order'
),

payments AS (
    SELECT
        raw_date,
        said[1] AS store,
        said[2] AS currency,
        said[3] AS order_id,
        TRY_CAST(said[4] AS TIMESTAMPTZ) AS updated_at,
        coalesce(TRY_CAST(said[5] AS TIMESTAMPTZ), TRY_CAST(said[6] AS TIMESTAMPTZ)) AS begun_at,
        unnest(paid) AS payment
    FROM orders
    WHERE NOT list_contains(list_transform(said[7:], lambda flag: coalesce(TRY_CAST(flag AS BOOLEAN), false)), true)
),

judged AS (
    SELECT
        *,
        payment ->> 'guid' AS id,
        minor_unit(currency) AS factor,
        -- Only card payments have a status of their own. One that is not known here may have moved money: it waits. One
        -- whose void is being processed has not, and will not.
        CASE
            WHEN json_type(payment -> 'voidInfo') = 'OBJECT' THEN 'canceled'
            WHEN coalesce(payment ->> 'paymentStatus', 'CAPTURED') = 'CAPTURED' THEN 'completed'
            WHEN payment ->> 'paymentStatus' IN ('VOIDED', 'VOIDED_AT_RISK', 'PROCESSING_VOID', 'CANCELLED') THEN 'canceled'
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
        payment ->> 'originalProcessingFee' AS kept, paid_at AS moment,
        coalesce(
            date_in(payment ->> 'paidBusinessDate'),
            business_date_of(store, TRY_CAST(payment ->> 'paidDate' AS TIMESTAMPTZ)), raw_date
        ) AS counts_on
    FROM judged
    UNION ALL
    SELECT
        *, 'refund', -1, payment ->> '$.refund.refundAmount', payment ->> '$.refund.tipRefundAmount', NULL,
        coalesce(TRY_CAST(payment ->> '$.refund.refundDate' AS TIMESTAMPTZ), paid_at),
        coalesce(
            date_in(payment ->> '$.refund.refundBusinessDate'),
            business_date_of(store, TRY_CAST(payment ->> '$.refund.refundDate' AS TIMESTAMPTZ)), raw_date
        )
    FROM judged
    WHERE json_type(payment -> 'refund') = 'OBJECT'
        AND (dollars(payment ->> '$.refund.refundAmount') <> 0
            OR dollars(payment ->> '$.refund.tipRefundAmount') <> 0)
)

SELECT
    store AS location_id,
    id AS payment_id,
    row_kind AS kind,
    order_id,
    CASE WHEN row_kind = 'refund' THEN id END AS source_payment_id,
    tender,
    coalesce(nullif(payment ->> 'cardType', ''), payment ->> 'type') AS tender_detail,
    CASE WHEN status IN ('canceled', 'failed') THEN 0 ELSE sign * rounded(given, factor) END::DECIMAL(18,4) AS amount,
    CASE WHEN status IN ('canceled', 'failed') THEN 0 ELSE sign * rounded(given_tip, factor) END::DECIMAL(18,4) AS tip,
    CASE WHEN status IN ('canceled', 'failed') THEN 0 ELSE -rounded(kept, factor) END::DECIMAL(18,4) AS fee,
    currency,
    status,
    moment AS occurred_at,
    updated_at,
    counts_on AS business_date,
    raw_date,
    CASE
        WHEN id IS NULL THEN 'one of its payments has no guid'
        WHEN factor IS NULL THEN 'its currency is not one that ISO 4217 gives a minor unit'
        WHEN given IS NOT NULL AND TRY_CAST(given AS DECIMAL(18,4)) IS NULL THEN 'the amount of a payment is not a number'
    END AS problem,
    payment::VARCHAR AS record
FROM sides;
