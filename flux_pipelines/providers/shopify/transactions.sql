-- Shopify orders -> rows of the `transactions` contract (flux_pipelines/domain/tables/). DuckDB SQL.
--
-- Everything before the last statement is run once a session; the last statement is the query: one streaming pass without
-- joins or sorting. In and out are as in providers/square/transactions.sql. Orders are GraphQL nodes as client.py lands them
-- (queries/order_parts.graphql and its neighbours): connections hold all of their nodes, amounts are texts in the shop's
-- currency. What Shopify means by its fields is from its published schema (2026-10) unless README.md names another source.
--
-- An order and everything that was given back of it are in one place: returns are rows of the order that was sold, on its
-- business date, with the time of the refund.

CREATE TYPE money AS STRUCT(amount VARCHAR);
CREATE TYPE bag AS STRUCT("shopMoney" money);
CREATE TYPE tax AS STRUCT("priceSet" bag);
CREATE TYPE reference AS STRUCT(id VARCHAR);
CREATE TYPE legacy AS STRUCT("legacyResourceId" VARCHAR);
CREATE TYPE line AS STRUCT(
    id VARCHAR, title VARCHAR, "variantTitle" VARCHAR, sku VARCHAR, quantity BIGINT, "currentQuantity" BIGINT,
    "isGiftCard" BOOLEAN, "requiresShipping" BOOLEAN, taxable BOOLEAN, "originalUnitPriceSet" bag,
    "discountAllocations" STRUCT("allocatedAmountSet" bag)[], "taxLines" tax[], variant legacy, product legacy
);
CREATE TYPE shipping AS STRUCT(
    id VARCHAR, title VARCHAR, "originalPriceSet" bag, "discountedPriceSet" bag, "taxLines" tax[]
);
CREATE TYPE refund_line AS STRUCT(
    id VARCHAR, quantity BIGINT, "lineItem" reference, "subtotalSet" bag, "totalTaxSet" bag
);
CREATE TYPE refund AS STRUCT(
    id VARCHAR, "legacyResourceId" VARCHAR, "createdAt" TIMESTAMP WITH TIME ZONE, "processedAt" TIMESTAMP WITH TIME ZONE,
    "refundLineItems" STRUCT(nodes refund_line[]),
    "refundShippingLines" STRUCT(nodes STRUCT(
        id VARCHAR, "shippingLine" STRUCT(id VARCHAR, title VARCHAR), "subtotalAmountSet" bag, "taxAmountSet" bag
    )[]),
    "orderAdjustments" STRUCT(nodes STRUCT(id VARCHAR, reason VARCHAR, "amountSet" bag, "taxAmountSet" bag)[])
);

CREATE TEMP TABLE orders_as_received (
    -- Put there by the client: the counter, or the shop itself for orders that were made at none.
    flux_location_id VARCHAR,
    id VARCHAR, "legacyResourceId" VARCHAR, test BOOLEAN, "processedAt" TIMESTAMP WITH TIME ZONE,
    "cancelledAt" TIMESTAMP WITH TIME ZONE, "currencyCode" VARCHAR, "presentmentCurrencyCode" VARCHAR,
    "taxesIncluded" BOOLEAN, "dutiesIncluded" BOOLEAN, "displayFinancialStatus" VARCHAR,
    "currentTotalPriceSet" bag, "netPaymentSet" bag, "totalOutstandingSet" bag, "totalTipReceivedSet" bag,
    "originalTotalDutiesSet" bag, "currentTotalDutiesSet" bag,
    "totalCashRoundingAdjustment" STRUCT("paymentSet" bag, "refundSet" bag),
    "additionalFees" STRUCT(id VARCHAR, name VARCHAR, price bag, "taxLines" tax[])[],
    transactions STRUCT(
        kind VARCHAR, status VARCHAR, gateway VARCHAR, test BOOLEAN, "amountSet" bag, "paymentDetails" STRUCT("__typename" VARCHAR)
    )[],
    refunds refund[],
    "lineItems" STRUCT(nodes line[]), "shippingLines" STRUCT(nodes shipping[])
);

-- An amount is a text with any number of decimals; one that DECIMAL(18,4) cannot hold exactly becomes NULL, which makes
-- the order a bad one.
CREATE MACRO exact(x) AS CASE
    WHEN x IS NULL THEN 0::DECIMAL(18,4)
    WHEN TRY_CAST(x AS DECIMAL(38,12)) = TRY_CAST(x AS DECIMAL(18,4)) THEN TRY_CAST(x AS DECIMAL(18,4))
END;
CREATE MACRO money_of(b) AS exact(b."shopMoney".amount);
CREATE MACRO added(amounts) AS coalesce(list_sum(amounts), 0)::DECIMAL(18,4);
CREATE MACRO taxes(lines) AS added(list_transform(lines, lambda t: money_of(t."priceSet")));
CREATE MACRO number_of(gid) AS regexp_extract(gid, '([^/?]+)(\?.*)?$', 1);

-- What is needed of each line, worked out once. `kept` is what was not taken out again by an edit: an edit is not a sale
-- and a return, but another order. What it took out is the part of `quantity` that is neither current nor refunded.
CREATE MACRO back_of(line_id, refunds) AS coalesce(list_sum(flatten(list_transform(refunds, lambda r: list_transform(
    list_filter(r."refundLineItems".nodes, lambda x: x."lineItem".id = line_id), lambda x: x.quantity
))))::BIGINT, 0::BIGINT);
CREATE MACRO kept_of(l, refunds) AS
    l.quantity - greatest(0, l.quantity - l."currentQuantity" - back_of(l.id, refunds));
-- Shopify rings up a tip as a line of its own, without a product, and does not say so but by its name.
CREATE MACRO is_tip(l, tips) AS coalesce(
    tips <> 0 AND l.title = 'Tip' AND l.variant IS NULL AND l.product IS NULL AND NOT l."isGiftCard"
        AND NOT coalesce(l.taxable, false),
    false
);
-- A part of an amount, rounded half up to the currency's minor unit, in integers: a division of decimals would be a DOUBLE.
CREATE MACRO ten_thousandths(amount) AS (amount * 10000)::HUGEINT;
CREATE MACRO share_of(amount, part, whole, factor) AS CASE
    WHEN part = whole OR whole = 0 THEN amount
    ELSE ((2 * ten_thousandths(amount) * part + whole * ten_thousandths(factor))
        // (2 * whole * ten_thousandths(factor)))::DECIMAL(18,0) * factor END;
CREATE MACRO name_of(l) AS coalesce(nullif(l.title, ''), 'Unnamed item');
CREATE MACRO priced(lines, refunds, tips, factor) AS list_transform(lines, lambda l: struct_pack(
    gid := l.id,
    line_type := CASE
        WHEN l."isGiftCard" THEN 'gift_card'
        WHEN is_tip(l, tips) THEN 'tip'
        WHEN l.variant IS NULL AND l.product IS NULL AND l.sku IS NULL THEN 'custom_amount'
        ELSE 'item' END,
    product_id := CASE WHEN is_tip(l, tips) THEN 'tip' ELSE coalesce(
        l.variant."legacyResourceId", 'name:' || name_of(l) || '|' || coalesce(l."variantTitle", '')
    ) END,
    product_name := name_of(l),
    variation := l."variantTitle",
    sku := nullif(l.sku, ''),
    units := kept_of(l, refunds),
    unit_price := money_of(l."originalUnitPriceSet"),
    price := (money_of(l."originalUnitPriceSet") * kept_of(l, refunds))::DECIMAL(18,4),
    discount := share_of(
        added(list_transform(l."discountAllocations", lambda a: money_of(a."allocatedAmountSet"))),
        kept_of(l, refunds), l.quantity, factor
    )::DECIMAL(18,4),
    tax := share_of(taxes(l."taxLines"), kept_of(l, refunds), l.quantity, factor)::DECIMAL(18,4)
));

CREATE MACRO row_of(
    line_id, kind, line_type, product_id, product_name, variation, sku, quantity, unit_price, gross, discount, tax, total,
    source_line_id, occurred_at
) AS struct_pack(
    line_id := line_id, kind := kind, line_type := line_type, product_id := product_id, product_name := product_name,
    variation := variation, sku := sku, quantity := (quantity)::DECIMAL(18,5), unit_price := (unit_price)::DECIMAL(18,4),
    gross := (gross)::DECIMAL(18,4), discount := (discount)::DECIMAL(18,4), tax := (tax)::DECIMAL(18,4),
    total := (total)::DECIMAL(18,4), source_line_id := source_line_id::VARCHAR,
    occurred_at := (occurred_at)::TIMESTAMP WITH TIME ZONE
);

-- Goods and charges are revenue; gift cards, tips and rounding are not: their amount is in `total` alone. `inside` is the
-- tax that the price already holds.
CREATE MACRO revenue_row(
    line_id, kind, line_type, product_id, product_name, variation, sku, quantity, unit_price, price, discount, tax, inside,
    source_line_id, occurred_at
) AS row_of(
    line_id, kind, line_type, product_id, product_name, variation, sku, quantity, unit_price,
    CASE WHEN line_type IN ('gift_card', 'tip', 'rounding') THEN 0 ELSE price - inside END,
    CASE WHEN line_type IN ('gift_card', 'tip', 'rounding') THEN 0 ELSE discount END,
    CASE WHEN line_type IN ('gift_card', 'tip', 'rounding') THEN 0 ELSE tax END,
    price - inside - discount + tax,
    source_line_id, occurred_at
);
CREATE MACRO amount_row(line_id, kind, line_type, label, amount) AS row_of(
    line_id, kind, line_type, line_type, label, NULL::VARCHAR, NULL::VARCHAR, 0, 0, 0, 0, 0, amount, NULL, NULL
);
CREATE MACRO charge_row(line_id, kind, label, price, discount, tax, inside, source_line_id, occurred_at) AS revenue_row(
    line_id, kind, 'service_charge', 'name:' || label || '|', label, NULL::VARCHAR, NULL::VARCHAR, 0, 0, price, discount,
    tax, inside, source_line_id, occurred_at
);

CREATE MACRO rows_of_lines(lines, included) AS coalesce(list_transform(
    list_filter(lines, lambda p: p.units > 0),
    lambda p: revenue_row(
        number_of(p.gid), 'sale', p.line_type, p.product_id, p.product_name, p.variation, p.sku,
        CASE WHEN p.line_type = 'tip' THEN 0 ELSE p.units END, CASE WHEN p.line_type = 'tip' THEN 0 ELSE p.unit_price END,
        p.price, p.discount, p.tax, CASE WHEN included THEN p.tax ELSE 0 END, NULL, NULL
    )
), []);
-- Free shipping (or picking it up) is a line of nothing: no row.
CREATE MACRO rows_of_shipping(lines, included) AS coalesce(list_transform(
    list_filter(lines, lambda s: money_of(s."originalPriceSet") IS NULL OR money_of(s."originalPriceSet") <> 0), lambda s, i: charge_row(
    'shipping:' || coalesce(number_of(s.id), i::VARCHAR), 'sale', coalesce(nullif(s.title, ''), 'Shipping'),
    money_of(s."originalPriceSet"), money_of(s."originalPriceSet") - money_of(s."discountedPriceSet"), taxes(s."taxLines"),
    CASE WHEN included THEN taxes(s."taxLines") ELSE 0 END, NULL, NULL
)), []);
CREATE MACRO rows_of_fees(fees) AS coalesce(list_transform(fees, lambda f, i: charge_row(
    'fee:' || coalesce(number_of(f.id), i::VARCHAR), 'sale', coalesce(nullif(f.name, ''), 'Fee'), money_of(f.price), 0,
    taxes(f."taxLines"), 0, NULL, NULL
)), []);
-- Duties are taxes of the country of destination: they are owed, and they are not revenue.
CREATE MACRO duty_row(line_id, kind, amount) AS
    charge_row(line_id, kind, 'Duties', 0::DECIMAL(18,4), 0, amount, 0::DECIMAL(18,4), NULL, NULL);

-- What came back, at its sign. `included`: whether prices hold their tax; `back_inside`: whether a refund's subtotal does.
CREATE MACRO tax_in(amount, is_in) AS CASE WHEN is_in THEN amount ELSE 0::DECIMAL(18,4) END;
CREATE MACRO rows_of_refund(r, lines, included, back_inside) AS list_concat(
    coalesce(list_transform(
        list_transform(r."refundLineItems".nodes, lambda x: struct_pack(
            x := x, p := list_filter(lines, lambda p: p.gid = x."lineItem".id)[1]
        )),
        lambda b, i: revenue_row(
            'return:' || number_of(r.id) || ':' || coalesce(number_of(b.x.id), i::VARCHAR), 'return', b.p.line_type,
            b.p.product_id, b.p.product_name, b.p.variation, b.p.sku,
            CASE WHEN b.p.line_type = 'tip' THEN 0 ELSE -b.x.quantity END,
            CASE WHEN b.p.line_type = 'tip' THEN 0 ELSE b.p.unit_price END,
            -b.p.unit_price * b.x.quantity,
            -- What the price had beyond the subtotal, both without tax, was a discount.
            money_of(b.x."subtotalSet") - tax_in(money_of(b.x."totalTaxSet"), back_inside)
                - b.p.unit_price * b.x.quantity + tax_in(money_of(b.x."totalTaxSet"), included),
            -money_of(b.x."totalTaxSet"),
            -tax_in(money_of(b.x."totalTaxSet"), included),
            number_of(b.x."lineItem".id), coalesce(r."processedAt", r."createdAt")
        )
    ), []),
    coalesce(list_transform(r."refundShippingLines".nodes, lambda s, i: charge_row(
        'return_shipping:' || number_of(r.id) || ':' || coalesce(number_of(s.id), i::VARCHAR), 'return',
        coalesce(nullif(s."shippingLine".title, ''), 'Shipping'), -money_of(s."subtotalAmountSet"), 0,
        -money_of(s."taxAmountSet"), -tax_in(money_of(s."taxAmountSet"), back_inside),
        'shipping:' || number_of(s."shippingLine".id), coalesce(r."processedAt", r."createdAt")
    )), []),
    -- The difference between what was calculated and what was given back: below zero when the customer got more.
    coalesce(list_transform(r."orderAdjustments".nodes, lambda a, i: revenue_row(
        'adjustment:' || number_of(r.id) || ':' || coalesce(number_of(a.id), i::VARCHAR), 'return', 'custom_amount',
        'name:Refund adjustment|', 'Refund adjustment', NULL::VARCHAR, NULL::VARCHAR, 0, 0, money_of(a."amountSet"), 0,
        money_of(a."taxAmountSet"), 0, NULL, coalesce(r."processedAt", r."createdAt")
    )), [])
);
CREATE MACRO rows_of_void(lines) AS coalesce(list_transform(lines, lambda p: row_of(
    number_of(p.gid), 'void', p.line_type, p.product_id, p.product_name, p.variation, p.sku, 0, 0, 0, 0, 0, 0, NULL, NULL
)), []);

CREATE MACRO total_of(some_rows) AS added(list_transform(some_rows, lambda r: r.total));
CREATE MACRO subtotals_back(refunds) AS added(flatten(list_transform(refunds, lambda r: list_concat(
    coalesce(list_transform(r."refundLineItems".nodes, lambda x: money_of(x."subtotalSet")), []),
    coalesce(list_transform(r."refundShippingLines".nodes, lambda s: money_of(s."subtotalAmountSet")), [])
))));
CREATE MACRO adjusted(refunds) AS added(flatten(list_transform(refunds, lambda r: coalesce(list_transform(
    r."orderAdjustments".nodes, lambda a: (money_of(a."amountSet") + money_of(a."taxAmountSet"))::DECIMAL(18,4)
), []))));

CREATE MACRO tender_of(t) AS CASE
    WHEN t.gateway = 'cash' THEN 'cash'
    WHEN t.gateway = 'gift_card' THEN 'gift_card'
    WHEN t."paymentDetails"."__typename" = 'CardPaymentDetails' OR t.gateway = 'shopify_payments' THEN 'card'
    ELSE 'other' END;
CREATE MACRO is_paid(t) AS coalesce(t.status = 'SUCCESS' AND t.kind IN ('SALE', 'CAPTURE', 'CHANGE') AND NOT coalesce(t.test, false), false);
CREATE MACRO tendered(transactions, tender) AS added(list_transform(
    list_filter(transactions, lambda t: is_paid(t) AND tender_of(t) = tender),
    lambda t: (CASE WHEN t.kind = 'CHANGE' THEN -money_of(t."amountSet") ELSE money_of(t."amountSet") END)::DECIMAL(18,4)
));
CREATE MACRO given_back(transactions) AS added(list_transform(
    list_filter(transactions, lambda t: t.kind = 'REFUND' AND t.status IN ('SUCCESS', 'PENDING') AND NOT coalesce(t.test, false)),
    lambda t: money_of(t."amountSet")
));

-- The query -----------------------------------------------------------------------------------------------------------
WITH read AS (
    SELECT
        *,
        CASE
            WHEN "cancelledAt" IS NOT NULL OR "displayFinancialStatus" = 'VOIDED' THEN 'CANCELED'
            WHEN "displayFinancialStatus" IN ('PAID', 'PARTIALLY_REFUNDED', 'REFUNDED') THEN 'COMPLETED'
        END AS state,
        priced("lineItems".nodes, refunds, money_of("totalTipReceivedSet"), minor_unit("currencyCode")) AS lines,
        (money_of("totalCashRoundingAdjustment"."paymentSet") - money_of("totalCashRoundingAdjustment"."refundSet"))
            ::DECIMAL(18,4) AS rounding,
        adjusted(refunds) AS discrepancy,
        minor_unit("currencyCode") AS factor
    FROM orders
    WHERE NOT coalesce(test, false)
),

owed AS (
    SELECT
        *,
        -- What the customer owes in the end; the same rule as orders.py.
        (money_of("currentTotalPriceSet") + rounding + CASE
            WHEN discrepancy <> 0 AND money_of("netPaymentSet") + money_of("totalOutstandingSet")
                - money_of("currentTotalPriceSet") IN (discrepancy, discrepancy + rounding)
            THEN discrepancy ELSE 0 END)::DECIMAL(18,4) AS provider_total,
        list_concat(
            rows_of_lines(lines, "taxesIncluded"),
            rows_of_shipping("shippingLines".nodes, "taxesIncluded"),
            rows_of_fees("additionalFees"),
            CASE WHEN money_of("originalTotalDutiesSet") <> 0 AND NOT "dutiesIncluded"
                THEN [duty_row('duties', 'sale', money_of("originalTotalDutiesSet"))] ELSE [] END,
            CASE WHEN money_of("originalTotalDutiesSet") <> money_of("currentTotalDutiesSet") AND NOT "dutiesIncluded"
                THEN [duty_row(
                    'return_duties', 'return', money_of("currentTotalDutiesSet") - money_of("originalTotalDutiesSet")
                )] ELSE [] END,
            -- A tip that is not among the lines.
            CASE WHEN money_of("totalTipReceivedSet") <> 0 AND len(list_filter(lines, lambda p: p.line_type = 'tip')) = 0
                THEN [amount_row('tip', 'sale', 'tip', 'Tip', money_of("totalTipReceivedSet"))] ELSE [] END,
            CASE WHEN money_of("totalCashRoundingAdjustment"."paymentSet") <> 0 THEN [amount_row(
                'rounding', 'sale', 'rounding', 'Rounding', money_of("totalCashRoundingAdjustment"."paymentSet")
            )] ELSE [] END,
            CASE WHEN money_of("totalCashRoundingAdjustment"."refundSet") <> 0 THEN [amount_row(
                'return_rounding', 'return', 'rounding', 'Rounding', -money_of("totalCashRoundingAdjustment"."refundSet")
            )] ELSE [] END
        ) AS sold_rows
    FROM read
    WHERE state IS NOT NULL
),

expanded AS (
    SELECT
        *,
        CASE WHEN state = 'CANCELED' THEN rows_of_void(lines) ELSE list_concat(sold_rows, coalesce(flatten(list_transform(
            refunds,
            lambda r: rows_of_refund(
                r, lines, "taxesIncluded",
                -- Whether the subtotal of a refund holds its tax where prices do is not documented; the total tells.
                "taxesIncluded"
                AND total_of(sold_rows) - subtotals_back(refunds) + discrepancy = provider_total
            )
        )), [])) END AS plain_rows
    FROM owed
),

settled AS (
    SELECT
        *,
        -- Every amount of an order in another currency is converted and rounded by itself: what is left over is said.
        CASE
            WHEN state = 'COMPLETED' AND "presentmentCurrencyCode" <> "currencyCode"
                AND total_of(plain_rows) <> provider_total
                AND abs(total_of(plain_rows) - provider_total) <= factor * 3 * len(plain_rows)
            THEN list_concat(plain_rows, [amount_row(
                'conversion', 'sale', 'rounding', 'Currency conversion', provider_total - total_of(plain_rows)
            )])
            ELSE plain_rows
        END AS order_rows
    FROM expanded
),

judged AS (
    SELECT
        *,
        total_of(order_rows) AS rows_total,
        CASE
            WHEN "processedAt" IS NULL THEN 'it has no processedAt'
            WHEN factor IS NULL THEN 'its currency ' || coalesce("currencyCode", '(none)')
                || ' is not one that ISO 4217 gives a minor unit'
            WHEN len(order_rows) <> len(list_distinct(list_transform(order_rows, lambda r: r.line_id)))
                THEN 'two of its lines have the same id'
            WHEN state = 'CANCELED' THEN NULL
            WHEN len(list_filter(order_rows, lambda r: r.total IS NULL)) > 0
                OR provider_total IS NULL
                THEN 'an amount is not a number of at most 4 decimal places, or a refund is of a line that it does not have'
            WHEN total_of(order_rows) <> provider_total THEN
                'its rows add up to ' || total_of(order_rows)::VARCHAR || ' ' || "currencyCode"
                || ', but its own total is ' || provider_total::VARCHAR || ' ' || "currencyCode"
        END AS problem
    FROM settled
),

placed AS (
    SELECT
        connection, tenant, flux_location_id AS location_id,
        "legacyResourceId", "currencyCode", "processedAt", raw_date, source_system, source_version, problem,
        -- A bad order still has to come out: as one row.
        unnest(CASE WHEN problem IS NULL THEN order_rows ELSE [order_rows[1]] END) AS r,
        unnest([true]) AS first_row,
        unnest(CASE
            WHEN problem IS NOT NULL OR state = 'CANCELED' THEN [NULL]
            ELSE [struct_pack(
                cash := tendered(transactions, 'cash'),
                card := tendered(transactions, 'card'),
                gift_card := tendered(transactions, 'gift_card'),
                other := tendered(transactions, 'other'),
                refund := given_back(transactions)
            )]
        END) AS paid  -- the shorter lists are filled with NULL: only the first row has what they hold
    FROM judged
)

SELECT
    connection,
    tenant,
    location_id,
    "legacyResourceId" AS order_id,
    r.line_id AS line_id,
    r.kind AS kind,
    r.line_type AS line_type,
    r.product_id AS product_id,
    r.product_name AS product_name,
    r.variation AS variation,
    NULL::VARCHAR AS category,
    r.sku AS sku,
    r.quantity AS quantity,
    r.unit_price AS unit_price,
    r.gross AS gross,
    r.discount AS discount,
    (r.gross - r.discount)::DECIMAL(18,4) AS net,
    r.tax AS tax,
    0::DECIMAL(18,4) AS marketplace_tax,
    r.total AS total,
    "currencyCode" AS currency,
    coalesce(paid.cash, 0)::DECIMAL(18,4) AS tendered_cash,
    coalesce(paid.card, 0)::DECIMAL(18,4) AS tendered_card,
    coalesce(paid.gift_card, 0)::DECIMAL(18,4) AS tendered_gift_card,
    coalesce(paid.other, 0)::DECIMAL(18,4) AS tendered_other,
    (-coalesce(paid.refund, 0))::DECIMAL(18,4) AS tendered_refund,
    NULL::DECIMAL(18,4) AS due,
    CASE WHEN r.kind = 'return' THEN "legacyResourceId" END AS source_order_id,
    r.source_line_id AS source_line_id,
    coalesce(r.occurred_at, "processedAt") AS occurred_at,
    raw_date AS business_date,
    raw_date,
    source_system,
    source_version,
    coalesce(first_row, false) AS first_row,
    problem
FROM placed
WHERE r IS NOT NULL OR problem IS NOT NULL;
