-- Transactions of Shopify orders -> rows of the `payments` contract (flux_pipelines/domain/tables). DuckDB SQL.
--
--   in   `records`  kind `order`: orders as client.py lands them (queries/order_parts.graphql), without what is long in them:
--                    kind `agreement` (its `part_of` is the order) is given apart, lines are left out
--   out  the contract's columns, `problem` (NULL for a good row) and `record`
--
-- SALE and CAPTURE are money that came, REFUND is money given back. CHANGE is "the money returned to the customer when they've
-- paid too much during a cash transaction": what that payment came to is less by it, and it is no row of its own. An
-- AUTHORIZATION is only a promise: it is a row (pending, or cancelled by its VOID) until something is captured of it. Each
-- counts on the business date on which it was processed. Amounts are what was handed over, cash rounding included.
-- A refund says by its own gateway where the money went (back to the card, or into store credit); where that is the gateway of
-- the payment that it refunds, it is of the same tender. Tips are the order's sales of that type; which tender paid one,
-- Shopify does not say: it is taken to be the last one that is large enough, and a tip that was given back to be in the first
-- refund that is. Fees are known for Shopify Payments alone, and counted when they are in the order's currency.

CREATE MACRO number_of(gid) AS regexp_extract(gid, '([^/?]+)(\?.*)?$', 1);
CREATE MACRO tender_of(gateway, details) AS CASE
    WHEN gateway = 'cash' THEN 'cash'
    WHEN gateway = 'gift_card' THEN 'gift_card'
    WHEN details = 'CardPaymentDetails' OR gateway = 'shopify_payments' THEN 'card'
    ELSE 'other' END;

WITH tipped AS (
    SELECT
        part_of,
        flatten(list(list_filter(
            (object -> '$.sales.nodes[*]')::JSON[], lambda s: (s ->> '$.lineType') = 'TIP'
        ) ORDER BY part_number)) AS tip_sales
    FROM records
    WHERE kind = 'agreement'
    GROUP BY part_of
),

orders AS (
    SELECT
        r.* EXCLUDE (part_of),
        tip_sales,
        object ->> '$.legacyResourceId' AS order_id,
        object ->> '$.flux_location_id' AS store,
        object ->> '$.currencyCode' AS currency,
        (object -> '$.agreements') IS NULL AS unsold,
        (object -> '$.transactions[*]')::JSON[] AS every
    FROM records AS r LEFT JOIN tipped ON tipped.part_of = r.part_number
    WHERE kind = 'order' AND coalesce(object ->> '$.test', 'false') = 'false'
),

whole AS (
    SELECT
        *,
        coalesce(list_sum(list_transform(
            list_filter(tip_sales, lambda s: (s ->> '$.actionType') <> 'RETURN'),
            lambda s: exact_or_zero(s ->> '$.totalAmount.shopMoney.amount')
        )), 0)::DECIMAL(18,4) AS tips,
        (-coalesce(list_sum(list_transform(
            list_filter(tip_sales, lambda s: (s ->> '$.actionType') = 'RETURN'),
            lambda s: exact_or_zero(s ->> '$.totalAmount.shopMoney.amount')
        )), 0))::DECIMAL(18,4) AS tips_back,
        -- Cash that was handed back at once: of the payment that it names, or else of the last one in cash.
        list_filter(every, lambda t: (t ->> '$.kind') = 'CHANGE' AND (t ->> '$.status') = 'SUCCESS'
            AND coalesce(t ->> '$.test', 'false') = 'false') AS change,
        list_transform(
            list_filter(every, lambda t: (t ->> '$.kind') IN ('SALE', 'CAPTURE') AND (t ->> '$.status') = 'SUCCESS'),
            lambda t: t ->> '$.id'
        ) AS paid,
        list_transform(
            list_filter(every, lambda t: (t ->> '$.kind') IN ('SALE', 'CAPTURE') AND (t ->> '$.status') = 'SUCCESS'
                AND (t ->> '$.gateway') = 'cash'),
            lambda t: t ->> '$.id'
        )[-1] AS last_cash
    FROM orders
),

transactions AS (
    SELECT
        whole.* EXCLUDE (object),
        whole.object AS object,
        unnest(every) AS t,
        generate_subscripts(every, 1) AS position
    FROM whole
),

read AS (
    SELECT
        *,
        t ->> '$.id' AS id,
        t ->> '$.kind' AS what,
        t ->> '$.status' AS said,
        t ->> '$.gateway' AS gateway,
        t ->> '$.parentTransaction.id' AS parent,
        TRY_CAST(coalesce(t ->> '$.processedAt', t ->> '$.createdAt') AS TIMESTAMPTZ) AS made_at,
        list_filter(every, lambda p: (p ->> '$.id') = (t ->> '$.parentTransaction.id'))[1] AS parent_t,
        -- What was handed over, less the change.
        (exact_or_zero(t ->> '$.amountSet.shopMoney.amount') - coalesce(list_sum(list_transform(
            list_filter(change, lambda c: (t ->> '$.id') = CASE
                WHEN list_contains(paid, c ->> '$.parentTransaction.id') THEN c ->> '$.parentTransaction.id'
                ELSE last_cash END),
            lambda c: exact_or_zero(c ->> '$.amountSet.shopMoney.amount')
        )), 0))::DECIMAL(18,4) AS handed,
        -- The fees of this transaction that are in its order's currency.
        coalesce(list_sum(list_transform(
            list_filter((t -> '$.fees[*]')::JSON[], lambda f: (f ->> '$.amount.currencyCode') = currency),
            lambda f: (exact_or_zero(f ->> '$.amount.amount') + exact_or_zero(f ->> '$.taxAmount.amount'))::DECIMAL(18,4)
        )), 0)::DECIMAL(18,4) AS fees
    FROM transactions
    WHERE coalesce(t ->> '$.test', 'false') = 'false'
),

ranked AS (
    SELECT
        *,
        max(CASE WHEN what IN ('SALE', 'CAPTURE') AND said = 'SUCCESS' AND handed >= tips THEN position END)
            OVER of_order AS tipped_at,
        min(CASE WHEN what = 'REFUND' AND said = 'SUCCESS' AND handed >= tips_back THEN position END)
            OVER of_order AS tip_back_at,
        list(CASE WHEN what IN ('CAPTURE', 'VOID') AND said = 'SUCCESS' THEN what || ' ' || parent END) OVER of_order
            AS followed
    FROM read
    WINDOW of_order AS (PARTITION BY order_id, collected_at)
),

judged AS (
    SELECT
        *,
        CASE WHEN what = 'REFUND' THEN 'refund' ELSE 'payment' END AS row_kind,
        CASE WHEN what = 'REFUND' THEN -1 ELSE 1 END AS sign,
        CASE
            WHEN said IN ('FAILURE', 'ERROR') THEN 'failed'
            WHEN what IN ('AUTHORIZATION', 'EMV_AUTHORIZATION') AND list_contains(followed, 'VOID ' || id) THEN 'canceled'
            WHEN what IN ('AUTHORIZATION', 'EMV_AUTHORIZATION') THEN 'pending'
            WHEN said = 'SUCCESS' THEN 'completed'
            ELSE 'pending'
        END AS status,
        CASE
            WHEN position = tipped_at AND what IN ('SALE', 'CAPTURE') THEN tips
            WHEN position = tip_back_at AND what = 'REFUND' THEN tips_back
            ELSE 0
        END::DECIMAL(18,4) AS tip
    FROM ranked
    WHERE what NOT IN ('VOID', 'SUGGESTED_REFUND', 'CHANGE')
        AND NOT (what IN ('AUTHORIZATION', 'EMV_AUTHORIZATION') AND list_contains(followed, 'CAPTURE ' || id))
)

SELECT
    store AS location_id,
    number_of(id) AS payment_id,
    row_kind AS kind,
    order_id,
    CASE WHEN row_kind = 'refund' THEN number_of(parent) END AS source_payment_id,
    tender_of(gateway, coalesce(
        t ->> '$.paymentDetails.__typename',
        CASE WHEN (parent_t ->> '$.gateway') = gateway THEN parent_t ->> '$.paymentDetails.__typename' END
    )) AS tender,
    coalesce(nullif(concat_ws(
        ' ', gateway, t ->> '$.paymentDetails.company', lower(t ->> '$.paymentDetails.wallet')
    ), ''), NULL) AS tender_detail,
    CASE WHEN status IN ('failed', 'canceled') THEN 0 ELSE sign * (handed - tip) END::DECIMAL(18,4) AS amount,
    CASE WHEN status IN ('failed', 'canceled') THEN 0 ELSE sign * tip END::DECIMAL(18,4) AS tip,
    CASE WHEN status = 'completed' THEN -fees ELSE 0 END::DECIMAL(18,4) AS fee,
    currency,
    status,
    made_at AS occurred_at,
    TRY_CAST(object ->> '$.updatedAt' AS TIMESTAMPTZ) AS updated_at,
    coalesce(business_date_of(store, made_at), raw_date) AS business_date,
    raw_date,
    CASE
        WHEN unsold THEN 'fetched before sales were read from agreements; fetch the date again'
        WHEN id IS NULL THEN 'a payment has no id'
        WHEN handed IS NULL OR tips IS NULL OR fees IS NULL
            THEN 'an amount of a payment is not a number of at most 4 decimal places'
        WHEN minor_unit(currency) IS NULL THEN no_currency(currency)
        WHEN made_at IS NULL THEN 'a payment has no time'
    END AS problem,
    object::VARCHAR AS record
FROM judged;
