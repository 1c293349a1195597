-- Square payments and refunds -> rows of the `payments` contract (flux_pipelines/domain/tables). DuckDB SQL.
--
--   in   `records`  kind `payment` (Payment), `refund` (PaymentRefund), and what a refund of the same partition gives back
--                    where that is of another date: `refunded_tender` (Tender) or `refunded_payment` (Payment)
--        `minor_unit(code)`  the exact factor from minor units, NULL for an unknown currency
--   out  the contract's columns, `problem` (NULL for a good row) and `record`
--
-- Facts about the fields: Square's OpenAPI description (2025-08-20), schemas Payment, PaymentRefund, DestinationDetails,
-- ProcessingFee. What a
-- payment is of changes over the years, so no value of an enum is a problem: an unknown one counts as pending or `other`,
-- and is told in `tender_detail`.

-- Each look into a JSON text takes memory for all of the text, of some 2,000 records at once: looked into wherever something
-- is asked of it, a day of 1,600 payments took more than 250 MiB. So each is looked into once. What has not the documented
-- form is NULL; amounts stay JSON, because they are judged by their form.
CREATE MACRO opened(object) AS json_transform(object, '{
    "id": "VARCHAR", "status": "VARCHAR", "payment_id": "VARCHAR", "order_id": "VARCHAR", "location_id": "VARCHAR",
    "type": "VARCHAR", "source_type": "VARCHAR", "destination_type": "VARCHAR",
    "created_at": "VARCHAR", "updated_at": "VARCHAR",
    "amount_money": "JSON", "tip_money": "JSON", "app_fee_money": "JSON", "total_money": "JSON", "processing_fee": "JSON",
    "card_details": {"card": {"card_brand": "VARCHAR"}}, "destination_details": "JSON", "external_details": "JSON",
    "wallet_details": {"brand": "VARCHAR"}, "buy_now_pay_later_details": {"brand": "VARCHAR"},
    "bank_account_details": {"transfer_type": "VARCHAR"}, "offline_payment_details": {"client_created_at": "VARCHAR"}
}');

-- Digits only: a cast would round 12.5 cents without a word.
CREATE MACRO amount_of(money) AS whole(money ->> '$.amount');

CREATE MACRO is_spoilt(money) AS
    coalesce(json_type(money) NOT IN ('OBJECT', 'NULL'), false)
    OR ((money ->> '$.amount') IS NOT NULL AND amount_of(money) IS NULL);

-- What the app takes that has told Square of a payment made elsewhere.
CREATE MACRO source_fee_of(o) AS o.external_details -> '$.source_fee_money';

CREATE MACRO processing_fees(o) AS (o.processing_fee -> '$[*].amount_money.amount')::VARCHAR[];

CREATE MACRO tender_of(source, brand) AS CASE
    WHEN brand = 'SQUARE_GIFT_CARD' THEN 'gift_card'
    WHEN source IN ('CARD', 'WALLET') THEN 'card'
    WHEN source = 'CASH' THEN 'cash'
    ELSE 'other' END;

CREATE MACRO brand_of(o) AS coalesce(
    CASE WHEN o.type = 'SQUARE_GIFT_CARD' THEN o.type END,
    o.card_details.card.card_brand, o.destination_details ->> '$.card_details.card.card_brand',
    o.wallet_details.brand, o.buy_now_pay_later_details.brand, o.external_details ->> '$.type',
    o.destination_details ->> '$.external_details.type', o.bank_account_details.transfer_type
);

-- How a payment was paid; a tender of an order has other words for it (TenderType, where `OTHER` and cards of another
-- processor are what Payment calls EXTERNAL), and calls a gift card so instead of giving its brand.
CREATE MACRO source_of(o) AS coalesce(o.source_type, CASE
    WHEN o.type = 'SQUARE_GIFT_CARD' THEN 'CARD'
    WHEN o.type IN ('OTHER', 'THIRD_PARTY_CARD', 'NO_SALE') THEN 'EXTERNAL'
    ELSE o.type END);

WITH looked_into AS MATERIALIZED (
    SELECT *, opened(object) AS o FROM records
    WHERE kind IN ('payment', 'refund', 'refunded_tender', 'refunded_payment')
),

refunded AS (
    SELECT
        o.id AS refunded_id,
        raw_date AS refunded_with,
        any_value(struct_pack(source := source_of(o), brand := brand_of(o))) AS refunded
    FROM looked_into
    WHERE kind IN ('payment', 'refunded_tender', 'refunded_payment')
    GROUP BY refunded_id, refunded_with
),

read AS (
    SELECT
        *,
        o.id AS id,
        o.status AS said,
        -- Where a refund went it says itself only if that is elsewhere than where the payment came from
        -- (`destination_details`, or another type); `destination_type` alone calls a gift card CARD, and may be missing.
        kind = 'refund' AND refunded IS NOT NULL AND o.destination_details IS NULL
            AND coalesce(o.destination_type = refunded.source, true) AS went_back,
        CASE
            WHEN kind = 'payment' THEN o.source_type
            WHEN went_back THEN refunded.source
            ELSE o.destination_type
        END AS source,
        CASE WHEN went_back THEN refunded.brand ELSE brand_of(o) END AS brand,
        amount_of(o.amount_money) AS amount,
        coalesce(amount_of(o.tip_money), 0) AS tip,
        -- What Square keeps; a fee that is given back with a refund is below zero. What the app takes that made the payment
        -- comes off it as Square's own fee does; of a refund it is what the app gives back (`app_fee_money` of Payment and
        -- of PaymentRefund).
        added(list_transform(processing_fees(o), lambda a: whole(a)))
            + coalesce(amount_of(source_fee_of(o)), 0)
            + CASE kind WHEN 'payment' THEN 1 ELSE -1 END * coalesce(amount_of(o.app_fee_money), 0) AS fee,
        coalesce(o.amount_money ->> '$.currency', o.total_money ->> '$.currency') AS currency,
        -- A till that was offline makes the payment when it is back: the sale was before.
        TRY_CAST(coalesce(o.offline_payment_details.client_created_at, o.created_at) AS TIMESTAMPTZ) AS occurred_at,
        is_spoilt(o.amount_money) OR is_spoilt(o.tip_money) OR is_spoilt(source_fee_of(o)) OR is_spoilt(o.app_fee_money)
            OR coalesce(len(list_filter(processing_fees(o), lambda a: whole(a) IS NULL)), 0) > 0 AS spoilt,
        len(list_filter(
            list_concat(
                coalesce((o.processing_fee -> '$[*].amount_money')::VARCHAR[], []),
                [o.tip_money::VARCHAR, source_fee_of(o)::VARCHAR, o.app_fee_money::VARCHAR]
            ),
            lambda m: m::JSON ->> '$.currency' <> o.amount_money ->> '$.currency'
        )) > 0 AS in_two_currencies
    FROM looked_into LEFT JOIN refunded
        ON kind = 'refund' AND refunded_id = o.payment_id AND refunded_with = raw_date
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
            WHEN factor IS NULL THEN no_currency(currency)
            WHEN in_two_currencies THEN 'its amounts are in two currencies'
            WHEN amount IS NULL AND status NOT IN ('canceled', 'failed') THEN 'it has no amount'
        END AS problem
    FROM judged
)

SELECT
    coalesce(o.location_id, location_id) AS location_id,
    id AS payment_id,
    kind,
    o.order_id AS order_id,
    CASE kind WHEN 'refund' THEN nullif(o.payment_id, '') END AS source_payment_id,
    tender_of(source, brand) AS tender,
    nullif(concat_ws(' ', source, brand, CASE WHEN is_new_status THEN '(' || coalesce(said, 'no status') || ')' END), '')
        AS tender_detail,
    moved * sign * coalesce(amount, 0) AS amount,
    moved * sign * tip AS tip,
    moved * -fee AS fee,
    currency,
    status,
    occurred_at,
    TRY_CAST(o.updated_at AS TIMESTAMPTZ) AS updated_at,
    -- A payment counts on the date it happened, which is that of its partition.
    raw_date,
    problem,
    CASE WHEN problem IS NOT NULL THEN object::VARCHAR END AS record
FROM placed;
