-- Transactions of Shopify orders -> rows of the `payments` contract (flux_pipelines/domain/tables). DuckDB SQL.
--
--   in   `records`  kind `order`: orders as client.py lands them (queries/order_parts.graphql)
--   out  the contract's columns, `problem` (NULL for a good row) and `record`
--
-- SALE and CAPTURE are money that came, CHANGE is cash that went back over the counter at once (a payment below zero),
-- REFUND is money given back. An AUTHORIZATION is only a promise: it is a row (pending, or cancelled by its VOID) until
-- something is captured of it. Amounts are what was handed over, cash rounding included. Shopify does not say which tender
-- paid a tip: it is taken to be the last one that is large enough, and a tip that was given back to be in the first refund
-- that is. Fees are known for Shopify Payments alone, and counted when they are in the order's currency.

CREATE MACRO exact(x) AS CASE
    WHEN x IS NULL THEN 0::DECIMAL(18,4)
    WHEN TRY_CAST(x AS DECIMAL(38,12)) = TRY_CAST(x AS DECIMAL(18,4)) THEN TRY_CAST(x AS DECIMAL(18,4))
END;
CREATE MACRO number_of(gid) AS regexp_extract(gid, '([^/?]+)(\?.*)?$', 1);
CREATE MACRO tender_of(gateway, details) AS CASE
    WHEN gateway = 'cash' THEN 'cash'
    WHEN gateway = 'gift_card' THEN 'gift_card'
    WHEN details = 'CardPaymentDetails' OR gateway = 'shopify_payments' THEN 'card'
    ELSE 'other' END;

WITH orders AS (
    SELECT
        *,
        object ->> '$.legacyResourceId' AS order_id,
        object ->> '$.flux_location_id' AS store,
        object ->> '$.currencyCode' AS currency,
        exact(object ->> '$.totalTipReceivedSet.shopMoney.amount') AS tips,
        (object -> '$.lineItems.nodes[*]')::JSON[] AS lines,
        -- The lines that are tips: as in transactions.sql.
        list_transform(list_filter((object -> '$.lineItems.nodes[*]')::JSON[], lambda l:
            l ->> '$.title' = 'Tip' AND (l ->> '$.variant') IS NULL AND (l ->> '$.product') IS NULL
            AND (l ->> '$.isGiftCard') = 'false' AND coalesce(l ->> '$.taxable', 'false') = 'false'
        ), lambda l: l ->> '$.id') AS tip_lines
    FROM records
    WHERE kind = 'order' AND coalesce(object ->> '$.test', 'false') = 'false'
),

whole AS (
    SELECT
        *,
        CASE WHEN tips <> 0 THEN coalesce(list_sum(list_transform(
            list_filter((object -> '$.refunds[*].refundLineItems.nodes[*]')::JSON[], lambda x:
                list_contains(tip_lines, x ->> '$.lineItem.id')),
            lambda x: exact(x ->> '$.subtotalSet.shopMoney.amount')
        )), 0) ELSE 0 END::DECIMAL(18,4) AS tips_back
    FROM orders
),

transactions AS (
    SELECT
        whole.* EXCLUDE (object),
        whole.object AS object,
        unnest((object -> '$.transactions[*]')::JSON[]) AS t,
        generate_subscripts((object -> '$.transactions[*]')::JSON[], 1) AS position
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
        exact(t ->> '$.amountSet.shopMoney.amount') AS handed,
        -- The fees of this transaction that are in its order's currency.
        coalesce(list_sum(list_transform(
            list_filter((t -> '$.fees[*]')::JSON[], lambda f: (f ->> '$.amount.currencyCode') = currency),
            lambda f: (exact(f ->> '$.amount.amount') + exact(f ->> '$.taxAmount.amount'))::DECIMAL(18,4)
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
        CASE WHEN what IN ('REFUND', 'CHANGE') THEN -1 ELSE 1 END AS sign,
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
    WHERE what NOT IN ('VOID', 'SUGGESTED_REFUND')
        AND NOT (what IN ('AUTHORIZATION', 'EMV_AUTHORIZATION') AND list_contains(followed, 'CAPTURE ' || id))
)

SELECT
    connection,
    tenant,
    store AS location_id,
    number_of(id) AS payment_id,
    row_kind AS kind,
    order_id,
    CASE WHEN row_kind = 'refund' THEN number_of(parent) END AS source_payment_id,
    tender_of(gateway, t ->> '$.paymentDetails.__typename') AS tender,
    coalesce(nullif(concat_ws(
        ' ', gateway, t ->> '$.paymentDetails.company', lower(t ->> '$.paymentDetails.wallet')
    ), ''), NULL) AS tender_detail,
    CASE WHEN status IN ('failed', 'canceled') THEN 0 ELSE sign * (handed - tip) END::DECIMAL(18,4) AS amount,
    CASE WHEN status IN ('failed', 'canceled') THEN 0 ELSE sign * tip END::DECIMAL(18,4) AS tip,
    CASE WHEN status = 'completed' THEN -fees ELSE 0 END::DECIMAL(18,4) AS fee,
    currency,
    status,
    NULL::VARCHAR AS settlement_id,
    TRY_CAST(coalesce(t ->> '$.processedAt', t ->> '$.createdAt') AS TIMESTAMPTZ) AS occurred_at,
    TRY_CAST(object ->> '$.updatedAt' AS TIMESTAMPTZ) AS updated_at,
    raw_date AS business_date,
    raw_date,
    source_system,
    source_version,
    CASE
        WHEN id IS NULL THEN 'a payment has no id'
        WHEN handed IS NULL OR tips IS NULL OR fees IS NULL
            THEN 'an amount of a payment is not a number of at most 4 decimal places'
        WHEN minor_unit(currency) IS NULL
            THEN 'its currency ' || coalesce(currency, '(none)') || ' is not one that ISO 4217 gives a minor unit'
        WHEN TRY_CAST(coalesce(t ->> '$.processedAt', t ->> '$.createdAt') AS TIMESTAMPTZ) IS NULL
            THEN 'a payment has no time'
    END AS problem,
    object::VARCHAR AS record
FROM judged;
