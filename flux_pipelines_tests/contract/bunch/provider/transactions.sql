-- Bunch orders -> rows of the `transactions` contract; amounts are in minor units.
CREATE TYPE line AS STRUCT(
    id VARCHAR, item STRUCT(id VARCHAR), name VARCHAR, "alternateName" VARCHAR, "unitQty" VARCHAR, price BIGINT, amount BIGINT,
    "discountAmount" BIGINT, "taxAmount" BIGINT, "isRevenue" BOOLEAN, refunded BOOLEAN, "exchangedFrom" VARCHAR
);
CREATE TYPE payment AS STRUCT(
    tender STRUCT("labelKey" VARCHAR), result VARCHAR, amount BIGINT, "tipAmount" BIGINT, "createdTime" BIGINT
);

CREATE TEMP TABLE orders_as_received (
    id VARCHAR, currency VARCHAR, total BIGINT, state VARCHAR, "paymentState" VARCHAR, "merchantId" VARCHAR,
    "createdTime" BIGINT, "lineItems" STRUCT(elements line[]), "serviceCharges" STRUCT(elements line[]),
    payments STRUCT(elements payment[]), refunds STRUCT(elements payment[])
);

CREATE MACRO instant(ms) AS make_timestamptz(ms * 1000);
CREATE MACRO moved(listed) AS coalesce(list_filter(listed.elements, lambda p: p.result = 'SUCCESS'), []);
CREATE MACRO tips(paid) AS added(list_transform(paid, lambda p: p."tipAmount"));
CREATE MACRO sum_of(paid) AS added(list_transform(paid, lambda p: p.amount)) + tips(paid);
CREATE MACRO paid_by(paid, tenders) AS sum_of(list_filter(paid, lambda p: list_contains(tenders, p.tender."labelKey")));

-- Tips are the payments' alone: they become lines here.
CREATE MACRO tip_line(tip, back) AS CASE WHEN tip = 0 THEN []::line[] ELSE [{
    id: CASE WHEN back THEN 'tip-back' ELSE 'tip' END, item: NULL, name: 'Tip', "alternateName": NULL, "unitQty": '0', price: 0,
    amount: tip, "discountAmount": 0, "taxAmount": 0, "isRevenue": false, refunded: back, "exchangedFrom": NULL
}::line] END;

CREATE MACRO typed(lines, line_type) AS coalesce(list_transform(lines, lambda l: struct_pack(
    l := l,
    type := CASE WHEN line_type <> '' THEN line_type WHEN NOT l."isRevenue" THEN 'gift_card'
        WHEN l.item IS NULL THEN 'custom_amount' ELSE 'item' END
)), []);

WITH read AS (
    SELECT
        *,
        coalesce("paymentState" = 'PAID', false) AS counts,
        coalesce(state = 'voided', false) AS voided,
        moved(payments) AS taken,
        moved(refunds) AS given_back,
        sum_of(taken) - sum_of(given_back) AS paid_in_all
    FROM orders
    WHERE counts OR voided OR paid_in_all <> 0
),

expanded AS (
    SELECT
        *,
        list_concat(
            typed("lineItems".elements, ''),
            typed("serviceCharges".elements, 'service_charge'),
            CASE WHEN counts THEN typed(list_concat(tip_line(tips(taken), false), tip_line(tips(given_back), true)), 'tip') ELSE [] END
        ) AS lines,
        added(list_transform(lines, lambda x: CASE WHEN x.l.refunded THEN -1 ELSE 1 END
            * (x.l.amount - x.l."discountAmount" + x.l."taxAmount"))) AS rows_total,
        total + tips(taken) - tips(given_back) AS provider_total
    FROM read
),

judged AS (
    SELECT
        *,
        CASE
            WHEN "createdTime" IS NULL THEN 'it has no createdTime'
            WHEN minor_unit(currency) IS NULL THEN no_currency(currency)
            WHEN len(lines) <> len(list_distinct(list_transform(lines, lambda x: x.l.id))) THEN 'two of its lines have the same id'
            WHEN len(list_filter(lines, lambda x: TRY_CAST(x.l."unitQty" AS DECIMAL(18,5)) IS NULL)) > 0
                THEN 'a line has a quantity that is not a number'
            WHEN counts AND rows_total <> provider_total THEN 'its rows add up to ' || in_words(rows_total, currency)
                || ', but its own total and tips to ' || in_words(provider_total, currency)
        END AS problem
    FROM expanded
),

placed AS (
    SELECT
        *,
        -- One row of a bad order, and of one that does not count yet although something of it has been paid.
        unnest(CASE WHEN problem IS NULL AND (counts OR voided) THEN lines ELSE [lines[1]] END) AS x,
        unnest([true]) AS is_first
    FROM judged
),

signed AS (
    SELECT
        *,
        CASE WHEN NOT (counts OR voided) OR x IS NULL THEN NULL WHEN voided THEN 0 WHEN x.l.refunded THEN -1 ELSE 1 END AS sign,
        coalesce(x.type NOT IN ('gift_card', 'tip'), false) AS is_revenue,
        coalesce(is_first AND counts, false) AS has_tenders,
        coalesce(nullif(x.l.name, ''), 'Custom amount') AS name
    FROM placed
    WHERE x IS NOT NULL OR problem IS NOT NULL OR is_first
)

SELECT
    "merchantId" AS location_id,
    id AS order_id,
    CASE WHEN sign IS NULL THEN 'open' ELSE x.l.id END AS line_id,
    CASE WHEN sign IS NULL THEN 'open' WHEN voided THEN 'void' WHEN x.l.refunded THEN 'return' ELSE 'sale' END AS kind,
    CASE WHEN sign IS NULL THEN 'custom_amount' ELSE x.type END AS line_type,
    CASE WHEN sign IS NULL THEN 'name:Paid in part|'
        ELSE coalesce(x.l.item.id, 'name:' || name || '|' || coalesce(x.l."alternateName", '')) END AS product_id,
    CASE WHEN sign IS NULL THEN 'Paid in part' ELSE name END AS product_name,
    CASE WHEN sign IS NOT NULL THEN x.l."alternateName" END AS variation,
    coalesce(sign * TRY_CAST(x.l."unitQty" AS DECIMAL(18,5)), 0)::DECIMAL(18,5) AS quantity,
    coalesce(abs(sign) * x.l.price, 0) AS unit_price,
    CASE WHEN is_revenue THEN coalesce(sign * x.l.amount, 0) ELSE 0 END AS gross,
    CASE WHEN is_revenue THEN coalesce(sign * x.l."discountAmount", 0) ELSE 0 END AS discount,
    CASE WHEN is_revenue THEN coalesce(sign * x.l."taxAmount", 0) ELSE 0 END AS tax,
    coalesce(sign * (x.l.amount - x.l."discountAmount" + x.l."taxAmount"), 0) AS total,
    currency,
    CASE WHEN has_tenders THEN paid_by(taken, ['cash']) END AS tendered_cash,
    CASE WHEN has_tenders THEN paid_by(taken, ['card', 'wallet']) END AS tendered_card,
    CASE WHEN has_tenders THEN paid_by(taken, ['gift_card']) END AS tendered_gift_card,
    CASE WHEN has_tenders THEN paid_by(taken, ['other']) END AS tendered_other,
    CASE WHEN has_tenders THEN -sum_of(given_back) END AS tendered_refund,
    CASE WHEN sign IS NULL THEN -paid_in_all END AS due,
    x.l."exchangedFrom" AS source_order_id,
    instant("createdTime") AS occurred_at,
    -- It counts when the last of it was paid.
    business_date_of("merchantId", instant(coalesce(
        list_max(list_transform(list_concat(taken, given_back), lambda p: p."createdTime")), "createdTime"
    ))) AS business_date,
    raw_date,
    is_first AS first_row,
    problem
FROM signed;
