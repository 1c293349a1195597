-- Shopify orders -> rows of the `transactions` contract (flux_pipelines/domain/tables/). DuckDB SQL.
--
-- Everything before the last statement is run once a session; the last statement is the query: one streaming pass without
-- joins or sorting. In and out are as in providers/square/transactions.sql. Orders are GraphQL nodes as client.py lands them
-- (queries/orders.graphql): connections hold all of their nodes, amounts are texts in the shop's currency. What Shopify means
-- by its fields is from its published schema (2026-10) unless README.md names another source.
--
-- Rows are made of `Order.agreements`, Shopify's own ledger of sales: an agreement for an order's being placed, edited,
-- refunded or returned, and in it a sale for every line that it changed, negative for what came back. Each sale is a row, on
-- the business date of its agreement's `happenedAt`: the day on which Shopify's sales reports count it. Cancelling takes back
-- what was ordered, on its day. Whether an order is paid does not matter; test orders have no rows.

CREATE TYPE money AS STRUCT(amount VARCHAR);
CREATE TYPE bag AS STRUCT("shopMoney" money);
CREATE TYPE reference AS STRUCT(id VARCHAR);
CREATE TYPE legacy AS STRUCT("legacyResourceId" VARCHAR);
CREATE TYPE line AS STRUCT(
    id VARCHAR, title VARCHAR, "variantTitle" VARCHAR, sku VARCHAR, "originalUnitPriceSet" bag, variant legacy, product legacy
);
CREATE TYPE sale AS STRUCT(
    id VARCHAR, "actionType" VARCHAR, "lineType" VARCHAR, quantity BIGINT, "totalAmount" bag,
    "totalDiscountAmountAfterTaxes" bag, "totalDiscountAmountBeforeTaxes" bag, "totalTaxAmount" bag,
    taxes STRUCT(amount bag, "taxLine" STRUCT("channelLiable" BOOLEAN))[],
    "lineItem" reference, "shippingLine" STRUCT(id VARCHAR, title VARCHAR), fee STRUCT("__typename" VARCHAR, id VARCHAR),
    "additionalFee" STRUCT(id VARCHAR, name VARCHAR)
);

CREATE TEMP TABLE orders_as_received (
    -- Put there by the client: the counter, or the shop itself for orders that were made at none.
    flux_location_id VARCHAR,
    id VARCHAR, "legacyResourceId" VARCHAR, test BOOLEAN, "processedAt" TIMESTAMP WITH TIME ZONE,
    "cancelledAt" TIMESTAMP WITH TIME ZONE, "currencyCode" VARCHAR, "presentmentCurrencyCode" VARCHAR, "taxesIncluded" BOOLEAN,
    "currentTotalPriceSet" bag, "netPaymentSet" bag, "totalOutstandingSet" bag,
    "totalCashRoundingAdjustment" STRUCT("paymentSet" bag, "refundSet" bag),
    transactions STRUCT(
        kind VARCHAR, status VARCHAR, gateway VARCHAR, test BOOLEAN, "createdAt" TIMESTAMP WITH TIME ZONE,
        "processedAt" TIMESTAMP WITH TIME ZONE, "amountSet" bag, "amountRoundingSet" bag,
        "paymentDetails" STRUCT("__typename" VARCHAR)
    )[],
    "lineItems" STRUCT(nodes line[]),
    agreements STRUCT(nodes STRUCT("happenedAt" TIMESTAMP WITH TIME ZONE, reason VARCHAR, sales STRUCT(nodes sale[]))[])
);

-- An amount is a text with any number of decimals; one that DECIMAL(18,4) cannot hold exactly becomes NULL, which makes
-- the order a bad one.
CREATE MACRO money_of(b) AS exact_or_zero(b."shopMoney".amount);
CREATE MACRO added_exactly(amounts) AS coalesce(list_sum(amounts), 0)::DECIMAL(18,4);
CREATE MACRO number_of(gid) AS regexp_extract(gid, '([^/?]+)(\?.*)?$', 1);
CREATE MACRO name_of(l) AS coalesce(nullif(l.title, ''), 'Unnamed item');

-- Every sale of an order with the time of its agreement.
CREATE MACRO sales_of(agreements) AS coalesce(flatten(list_transform(agreements.nodes, lambda a: coalesce(list_transform(
    a.sales.nodes, lambda s: struct_pack(at := a."happenedAt", s := s)
), []))), []);

-- What was done, in the contract's words. An UPDATE is "a change to the price, taxes, or discounts for a prior purchase": it
-- changes a sale, whichever way. An action that this version of the API does not know is told by its sign.
CREATE MACRO kind_of(s) AS CASE
    WHEN s."actionType" = 'RETURN' THEN 'return'
    WHEN s."actionType" IN ('ORDER', 'UPDATE') THEN 'sale'
    WHEN money_of(s."totalAmount") < 0 THEN 'return'
    ELSE 'sale' END;
-- An adjustment is what was given back beyond the goods, or less than them (a fee for restocking or cancelling, goodwill): no
-- goods, but revenue that there is less, or more, of. So is what this version of the API has no type for: its amount counts.
CREATE MACRO line_type_of(s, l) AS CASE s."lineType"
    WHEN 'PRODUCT' THEN CASE WHEN l.variant IS NULL AND l.product IS NULL AND l.sku IS NULL THEN 'custom_amount' ELSE 'item' END
    WHEN 'GIFT_CARD' THEN 'gift_card'
    WHEN 'TIP' THEN 'tip'
    WHEN 'SHIPPING' THEN 'service_charge'
    WHEN 'FEE' THEN 'service_charge'
    WHEN 'ADDITIONAL_FEE' THEN 'service_charge'
    WHEN 'DUTY' THEN 'service_charge'
    ELSE 'custom_amount' END;
-- `shippingLine` "is not available if the SaleActionType is a return": it has the name of what was charged.
CREATE MACRO label_of(s, shipping) AS CASE s."lineType"
    WHEN 'SHIPPING' THEN coalesce(nullif(s."shippingLine".title, ''), shipping, 'Shipping')
    WHEN 'FEE' THEN CASE s.fee."__typename"
        WHEN 'RestockingFee' THEN 'Restocking fee' WHEN 'ReturnShippingFee' THEN 'Return shipping fee' ELSE 'Fee' END
    WHEN 'ADDITIONAL_FEE' THEN coalesce(nullif(s."additionalFee".name, ''), 'Fee')
    WHEN 'DUTY' THEN 'Duties'
    WHEN 'ADJUSTMENT' THEN 'Refund adjustment'
    ELSE 'Unknown sale' END;
CREATE MACRO is_of_line(s) AS s."lineType" IN ('PRODUCT', 'GIFT_CARD');
-- Units: what an UPDATE is of was sold before.
CREATE MACRO units_of(s) AS (CASE
    WHEN NOT is_of_line(s) OR s.quantity IS NULL OR s."actionType" = 'UPDATE' THEN 0
    WHEN s."actionType" = 'RETURN' THEN -abs(s.quantity)
    ELSE s.quantity END)::BIGINT;
-- Discounts are given twice, "before taxes" and "after taxes"; that both would be there for the same is not documented.
CREATE MACRO discount_given(s) AS CASE
    WHEN money_of(s."totalDiscountAmountBeforeTaxes") <> 0 THEN money_of(s."totalDiscountAmountBeforeTaxes")
    ELSE money_of(s."totalDiscountAmountAfterTaxes") END;
CREATE MACRO discount_of(s) AS CASE s."actionType"
    WHEN 'RETURN' THEN -abs(discount_given(s)) WHEN 'ORDER' THEN abs(discount_given(s)) ELSE discount_given(s) END;
-- Tax that "the channel that submitted the tax line is liable for remitting" is not the seller's.
CREATE MACRO remitted_of(s) AS added_exactly(list_transform(
    list_filter(s.taxes, lambda t: coalesce(t."taxLine"."channelLiable", false)), lambda t: money_of(t.amount)
));
-- Goods and charges are revenue; gift cards, tips and rounding are not: their amount is in `total` alone. Duties are taxes of
-- the country of destination: they are owed, and they are no revenue.
CREATE MACRO net_of(s) AS CASE
    WHEN s."lineType" IN ('GIFT_CARD', 'TIP', 'DUTY') THEN 0 ELSE money_of(s."totalAmount") - money_of(s."totalTaxAmount") END;
CREATE MACRO off_of(s) AS CASE WHEN s."lineType" IN ('GIFT_CARD', 'TIP', 'DUTY') THEN 0 ELSE discount_of(s) END;
CREATE MACRO tax_of(s) AS CASE
    WHEN s."lineType" IN ('GIFT_CARD', 'TIP') THEN 0
    WHEN s."lineType" = 'DUTY' THEN money_of(s."totalAmount")
    ELSE money_of(s."totalTaxAmount") END;
CREATE MACRO remitted(s) AS CASE WHEN s."lineType" IN ('GIFT_CARD', 'TIP') THEN 0 ELSE remitted_of(s) END;

-- The price of one unit without tax: where prices hold it, what the units come to without it, divided; half up, in integers.
CREATE MACRO ten_thousandths(amount) AS (amount * 10000)::HUGEINT;
CREATE MACRO divided(amount, units) AS
    share_of(ten_thousandths(abs(amount)), 1, abs(units))::DECIMAL(22,0) * 0.0001::DECIMAL(5,4);
CREATE MACRO unit_price_of(s, l, included) AS CASE
    WHEN NOT is_of_line(s) THEN 0
    WHEN NOT coalesce(included, false) OR units_of(s) = 0 OR s."lineType" = 'GIFT_CARD' THEN money_of(l."originalUnitPriceSet")
    ELSE divided(net_of(s) + off_of(s), units_of(s)) END;

CREATE MACRO row_of(
    line_id, kind, line_type, product_id, product_name, variation, sku, quantity, unit_price, gross, discount, tax, remitted,
    total, source_line_id, occurred_at
) AS struct_pack(
    line_id := line_id, kind := kind, line_type := line_type, product_id := product_id, product_name := product_name,
    variation := variation, sku := sku, quantity := (quantity)::DECIMAL(18,5), unit_price := (unit_price)::DECIMAL(18,4),
    gross := (gross)::DECIMAL(18,4), discount := (discount)::DECIMAL(18,4), tax := (tax)::DECIMAL(18,4),
    marketplace_tax := (remitted)::DECIMAL(18,4), total := (total)::DECIMAL(18,4), source_line_id := source_line_id::VARCHAR,
    occurred_at := (occurred_at)::TIMESTAMP WITH TIME ZONE
);
CREATE MACRO amount_row(line_id, kind, line_type, label, amount, occurred_at) AS row_of(
    line_id, kind, line_type, line_type, label, NULL::VARCHAR, NULL::VARCHAR, 0, 0, 0, 0, 0, 0, amount, NULL, occurred_at
);

-- A line's own row, the one that it was ordered by, has the line's id: what comes back of it names that. Every other row has
-- the id of its sale, with the type in front, since every type may count by itself.
CREATE MACRO sale_row(x, l, own, ordered, shipping, included) AS row_of(
    CASE WHEN own THEN number_of(x.s."lineItem".id)
        ELSE lower(x.s."lineType") || ':' || coalesce(number_of(x.s.id), '') END,
    kind_of(x.s),
    line_type_of(x.s, l),
    CASE
        WHEN x.s."lineType" = 'TIP' THEN 'tip'
        WHEN is_of_line(x.s)
            THEN coalesce(l.variant."legacyResourceId", 'name:' || name_of(l) || '|' || coalesce(l."variantTitle", ''))
        ELSE 'name:' || label_of(x.s, shipping) || '|' END,
    CASE WHEN x.s."lineType" = 'TIP' THEN 'Tip' WHEN is_of_line(x.s) THEN name_of(l) ELSE label_of(x.s, shipping) END,
    CASE WHEN is_of_line(x.s) THEN l."variantTitle" END,
    CASE WHEN is_of_line(x.s) THEN nullif(l.sku, '') END,
    units_of(x.s),
    unit_price_of(x.s, l, included),
    net_of(x.s) + off_of(x.s),
    off_of(x.s),
    tax_of(x.s) - remitted(x.s),
    remitted(x.s),
    money_of(x.s."totalAmount"),
    CASE WHEN kind_of(x.s) = 'return' AND ordered THEN number_of(x.s."lineItem".id) END,
    x.at
);
-- The ids of the lines that were ordered, each where its first ORDER sale stands.
CREATE MACRO ordered_in(sales) AS list_transform(
    sales, lambda x: CASE WHEN x.s."actionType" = 'ORDER' AND is_of_line(x.s) THEN x.s."lineItem".id END
);
CREATE MACRO rows_of(sales, lines, ordered, shipping, included) AS list_transform(
    list_transform(sales, lambda x, i: struct_pack(
        x := x, l := list_filter(lines, lambda l: l.id = x.s."lineItem".id)[1],
        own := is_of_line(x.s) AND coalesce(list_position(ordered, x.s."lineItem".id) = i, false),
        ordered := is_of_line(x.s) AND coalesce(list_contains(ordered, x.s."lineItem".id), false)
    )),
    lambda y: sale_row(y.x, y.l, y.own, y.ordered, shipping, included)
);
-- Free shipping (or picking it up) is a sale of nothing: no row.
CREATE MACRO says_something(r) AS coalesce(
    r.line_type IN ('item', 'custom_amount', 'gift_card') AND r.quantity <> 0
    OR r.gross <> 0 OR r.discount <> 0 OR r.tax <> 0 OR r.marketplace_tax <> 0 OR r.total <> 0,
    true
);

CREATE MACRO total_of(some_rows) AS added_exactly(list_transform(some_rows, lambda r: r.total));
CREATE MACRO at_of(t) AS coalesce(t."processedAt", t."createdAt");
CREATE MACRO tender_of(t) AS CASE
    WHEN t.gateway = 'cash' THEN 'cash'
    WHEN t.gateway = 'gift_card' THEN 'gift_card'
    WHEN t."paymentDetails"."__typename" = 'CardPaymentDetails' OR t.gateway = 'shopify_payments' THEN 'card'
    ELSE 'other' END;
CREATE MACRO is_paid(t) AS coalesce(t.status = 'SUCCESS' AND t.kind IN ('SALE', 'CAPTURE', 'CHANGE') AND NOT coalesce(t.test, false), false);
CREATE MACRO is_refund(t) AS coalesce(
    t.kind = 'REFUND' AND t.status IN ('SUCCESS', 'PENDING') AND NOT coalesce(t.test, false), false
);
CREATE MACRO tendered(transactions, tender) AS added_exactly(list_transform(
    list_filter(transactions, lambda t: is_paid(t) AND tender_of(t) = tender),
    lambda t: (CASE WHEN t.kind = 'CHANGE' THEN -money_of(t."amountSet") ELSE money_of(t."amountSet") END)::DECIMAL(18,4)
));
-- When cash was rounded: with the last transaction that says so, else with the last of its kind.
CREATE MACRO last_at(transactions) AS list_max(list_transform(transactions, lambda t: at_of(t)));
CREATE MACRO rounded_at(transactions) AS coalesce(
    last_at(list_filter(transactions, lambda t: money_of(t."amountRoundingSet") <> 0)), last_at(transactions)
);

-- The query -----------------------------------------------------------------------------------------------------------
WITH read AS (
    SELECT
        *,
        sales_of(agreements) AS sales,
        coalesce("lineItems".nodes, []) AS lines,
        list_filter(transactions, lambda t: is_paid(t)) AS payments,
        list_filter(transactions, lambda t: is_refund(t)) AS refunds,
        (money_of("totalCashRoundingAdjustment"."paymentSet") - money_of("totalCashRoundingAdjustment"."refundSet"))
            ::DECIMAL(18,4) AS rounding,
        minor_unit("currencyCode") AS factor
    FROM orders
    WHERE NOT coalesce(test, false)
),

owed AS (
    SELECT
        *,
        ordered_in(sales) AS ordered,
        list_filter(
            list_transform(sales, lambda x: nullif(x.s."shippingLine".title, '')), lambda title: title IS NOT NULL
        )[1] AS shipping,
        added_exactly(list_transform(
            list_filter(sales, lambda x: x.s."lineType" = 'ADJUSTMENT'), lambda x: money_of(x.s."totalAmount")
        )) AS adjusted
    FROM read
),

expanded AS (
    SELECT
        *,
        -- What the customer owes in the end; the same rule as orders.py.
        (CASE WHEN "cancelledAt" IS NULL THEN money_of("currentTotalPriceSet") ELSE 0 END + rounding + CASE
            WHEN adjusted <> 0 AND money_of("netPaymentSet") + money_of("totalOutstandingSet")
                - money_of("currentTotalPriceSet") IN (adjusted, adjusted + rounding)
            THEN adjusted ELSE 0 END)::DECIMAL(18,4) AS provider_total,
        list_concat(
            list_filter(
                rows_of(sales, lines, ordered, shipping, "taxesIncluded"), lambda r: says_something(r)
            ),
            CASE WHEN money_of("totalCashRoundingAdjustment"."paymentSet") <> 0 THEN [amount_row(
                'rounding', 'sale', 'rounding', 'Rounding', money_of("totalCashRoundingAdjustment"."paymentSet"),
                coalesce(rounded_at(payments), "processedAt")
            )] ELSE [] END,
            CASE WHEN money_of("totalCashRoundingAdjustment"."refundSet") <> 0 THEN [amount_row(
                'return_rounding', 'return', 'rounding', 'Rounding', -money_of("totalCashRoundingAdjustment"."refundSet"),
                coalesce(rounded_at(refunds), "processedAt")
            )] ELSE [] END
        ) AS plain_rows
    FROM owed
),

settled AS (
    SELECT
        *,
        -- Every amount of an order in another currency is converted and rounded by itself: what is left over is said.
        CASE
            WHEN "presentmentCurrencyCode" <> "currencyCode" AND total_of(plain_rows) <> provider_total
                AND abs(total_of(plain_rows) - provider_total) <= factor * 3 * len(plain_rows)
            THEN list_concat(plain_rows, [amount_row(
                'conversion', 'sale', 'rounding', 'Currency conversion', provider_total - total_of(plain_rows), "processedAt"
            )])
            ELSE plain_rows
        END AS order_rows
    FROM expanded
),

judged AS (
    SELECT
        *,
        CASE
            WHEN agreements IS NULL THEN 'fetched before sales were read from agreements; fetch the date again'
            WHEN "processedAt" IS NULL THEN 'it has no processedAt'
            WHEN factor IS NULL THEN no_currency("currencyCode")
            WHEN len(list_filter(sales, lambda x: x.at IS NULL)) > 0 THEN 'one of its agreements does not say when it happened'
            WHEN len(list_filter(sales, lambda x: is_of_line(x.s) AND NOT list_contains(
                list_transform(lines, lambda l: l.id), x.s."lineItem".id
            ))) > 0 THEN 'a sale is of a line that it does not have'
            WHEN len(order_rows) <> len(list_distinct(list_transform(order_rows, lambda r: r.line_id)))
                THEN 'two of its sales have the same id'
            WHEN len(list_filter(order_rows, lambda r: (r.gross + r.tax + r.total) IS NULL)) > 0 OR provider_total IS NULL
                THEN 'an amount is not a number of at most 4 decimal places'
            WHEN total_of(order_rows) <> provider_total THEN
                'its rows add up to ' || total_of(order_rows)::VARCHAR || ' ' || "currencyCode"
                || ', but its own total is ' || provider_total::VARCHAR || ' ' || "currencyCode"
        END AS problem
    FROM settled
),

-- The dates on which the rows count and on which money was given back, each list as long as its own.
dated AS (
    SELECT
        *,
        list_transform(order_rows, lambda r: coalesce(business_date_of(flux_location_id, r.occurred_at), raw_date)) AS days,
        list_transform(refunds, lambda t: coalesce(business_date_of(flux_location_id, at_of(t)), raw_date)) AS refund_days
    FROM judged
),

returned AS (
    SELECT
        *,
        list_transform(order_rows, lambda r, i: CASE WHEN r.kind = 'return' THEN days[i] END) AS return_days
    FROM dated
),

placed AS (
    SELECT
        flux_location_id AS location_id,
        -- What is owed in the end less what was paid in the end: a refund that is pending is still to be given back. Of an order
        -- that was cancelled nothing is due: what it was paid and is not given back is for a person to look at.
        (CASE WHEN "cancelledAt" IS NULL AND "netPaymentSet"."shopMoney".amount IS NOT NULL
            THEN provider_total - money_of("netPaymentSet") ELSE 0 END)::DECIMAL(18,4) AS due,
        "legacyResourceId", "currencyCode", "processedAt", raw_date, problem,
        -- A bad order still has to come out: as one row.
        unnest(CASE WHEN problem IS NULL THEN order_rows ELSE [order_rows[1]] END) AS r,
        unnest(CASE WHEN problem IS NULL THEN days ELSE [raw_date] END) AS day,
        list_min(days) AS first_day,
        unnest([true]) AS first_row,
        unnest(CASE
            WHEN problem IS NOT NULL THEN [NULL]
            ELSE [struct_pack(
                cash := tendered(transactions, 'cash'),
                card := tendered(transactions, 'card'),
                gift_card := tendered(transactions, 'gift_card'),
                other := tendered(transactions, 'other')
            )]
        END) AS paid,  -- the shorter lists are filled with NULL: only the first row has what they hold
        -- What was given back on a date is with the first row of that date that came back; with the order where there is none.
        unnest(CASE WHEN problem IS NULL THEN list_transform(order_rows, lambda r, i: added_exactly(list_transform(
            list_filter(refunds, lambda t, j: CASE
                WHEN list_contains(return_days, refund_days[j]) THEN list_position(return_days, refund_days[j]) = i
                ELSE i = 1 END),
            lambda t: money_of(t."amountSet")
        ))) ELSE [NULL] END) AS given_back
    FROM returned
)

SELECT
    location_id,
    "legacyResourceId" AS order_id,
    r.line_id AS line_id,
    r.kind AS kind,
    r.line_type AS line_type,
    r.product_id AS product_id,
    r.product_name AS product_name,
    r.variation AS variation,
    r.sku AS sku,
    r.quantity AS quantity,
    r.unit_price AS unit_price,
    r.gross AS gross,
    r.discount AS discount,
    r.tax AS tax,
    r.marketplace_tax AS marketplace_tax,
    r.total AS total,
    "currencyCode" AS currency,
    paid.cash AS tendered_cash,
    paid.card AS tendered_card,
    paid.gift_card AS tendered_gift_card,
    paid.other AS tendered_other,
    -given_back AS tendered_refund,
    due,
    -- What an edit of a later date has added is no order of that date.
    CASE WHEN r.kind = 'return' OR day > first_day THEN "legacyResourceId" END AS source_order_id,
    r.source_line_id AS source_line_id,
    coalesce(r.occurred_at, "processedAt") AS occurred_at,
    day AS business_date,
    raw_date,
    first_row,
    problem
FROM placed
WHERE r IS NOT NULL OR problem IS NOT NULL;
