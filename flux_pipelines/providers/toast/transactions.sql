-- Toast orders -> rows of the `transactions` contract (flux_pipelines/domain/tables). DuckDB SQL.
--
-- Everything before the last statement is run once a session; the last statement is the query. It is one streaming pass
-- without joins or sorting, so its memory does not grow with the number of orders, and rows come out in the order of
-- the input.
--   in   `orders`      the columns of `orders_as_received`, and connection, tenant, raw_date, source_system,
--                      source_version
--        `minor_unit(code)`  a macro: the exact factor from minor units to the currency's unit (0.01 for USD), NULL for a
--                      code that ISO 4217 does not know
--   out  the contract's columns; `first_row`: whether the row is its order's first; `problem`: why the order cannot be
--        used (NULL for a good one). An order with a problem comes out as one row, so that it can be found and put in
--        quarantine whole.
--
-- Amounts are JSON numbers in the currency's unit. They are read as DECIMAL(18,4), never as floating point, and rounded
-- to the minor unit: floats that Toast added up leave crumbs (12.990000000000002). Facts about fields are from Toast's
-- orders API 2.9.0 (schemas Order, Check, Selection, Payment, RefundDetails) and the developer guide's "Order object
-- summary" and "Calculating net sales".

CREATE TYPE reference AS STRUCT(guid VARCHAR, "multiLocationId" VARCHAR);
CREATE TYPE refunded AS STRUCT(
    "refundAmount" DECIMAL(18,4), "taxRefundAmount" DECIMAL(18,4), "refundTransaction" STRUCT(guid VARCHAR)
);
-- Modifiers stay unread: their amounts are inside their parent's, and their quantity is their parent's.
CREATE TYPE selection AS STRUCT(
    guid VARCHAR, item reference, "displayName" VARCHAR, "selectionType" VARCHAR, deferred BOOLEAN, voided BOOLEAN,
    quantity DECIMAL(18,5), "receiptLinePrice" DECIMAL(18,4), "preDiscountPrice" DECIMAL(18,4), price DECIMAL(18,4),
    tax DECIMAL(18,4), "refundDetails" refunded
);
CREATE TYPE charge AS STRUCT(
    guid VARCHAR, name VARCHAR, "chargeAmount" DECIMAL(18,4), gratuity BOOLEAN, "serviceCharge" reference,
    "appliedTaxes" STRUCT("taxAmount" DECIMAL(18,4))[], "refundDetails" refunded
);
CREATE TYPE payment AS STRUCT(
    "type" VARCHAR, amount DECIMAL(18,4), "tipAmount" DECIMAL(18,4), "paymentStatus" VARCHAR, "voidInfo" JSON,
    refund STRUCT(
        "refundAmount" DECIMAL(18,4), "tipRefundAmount" DECIMAL(18,4), "refundDate" TIMESTAMP WITH TIME ZONE
    )
);

CREATE TEMP TABLE orders_as_received (
    flux_location_id VARCHAR, flux_currency VARCHAR, guid VARCHAR, "openedDate" TIMESTAMP WITH TIME ZONE,
    "createdDate" TIMESTAMP WITH TIME ZONE, "closedDate" TIMESTAMP WITH TIME ZONE, voided BOOLEAN, deleted BOOLEAN,
    "createdInTestMode" BOOLEAN,
    checks STRUCT(
        guid VARCHAR, "totalAmount" DECIMAL(18,4), "paymentStatus" VARCHAR, voided BOOLEAN, deleted BOOLEAN,
        selections selection[], "appliedServiceCharges" charge[], payments payment[]
    )[]
);

-- An amount in minor units. Half of one goes up, as in orders.py.
CREATE MACRO minor(amount, factor) AS round(coalesce(amount, 0) / factor)::BIGINT;

CREATE MACRO added(amounts) AS coalesce(list_sum(amounts)::BIGINT, 0::BIGINT);

CREATE MACRO counts(c) AS NOT (coalesce(c.voided, false) OR coalesce(c.deleted, false));

-- A payment that moved money, or will. Statuses that are not known here may have.
CREATE MACRO moved(p) AS
    coalesce(p."paymentStatus" NOT IN ('VOIDED', 'CANCELLED', 'DENIED', 'ERROR', 'ERROR_NETWORK'), true)
    AND coalesce(p."voidInfo"::VARCHAR, 'null') = 'null';

-- A gift card sold or charged, or money paid into a house account: a debt to the customer, not revenue.
CREATE MACRO is_debt(s) AS coalesce(s.deferred, false)
    OR coalesce(s."selectionType" IN ('TOAST_CARD_SELL', 'TOAST_CARD_RELOAD', 'HOUSE_ACCOUNT_PAY_BALANCE'), false);

CREATE MACRO line_type_of(s) AS CASE
    WHEN is_debt(s) THEN 'gift_card' WHEN s.item.guid IS NULL THEN 'custom_amount' ELSE 'item' END;

CREATE MACRO name_of(s) AS coalesce(nullif(s."displayName", ''), CASE s."selectionType"
    WHEN 'TOAST_CARD_SELL' THEN 'Gift card' WHEN 'TOAST_CARD_RELOAD' THEN 'Gift card'
    WHEN 'HOUSE_ACCOUNT_PAY_BALANCE' THEN 'House account payment' ELSE 'Unnamed item' END);

-- The same item has another GUID in every restaurant, and may get a new one when menus are published.
CREATE MACRO product_of(s) AS
    coalesce(nullif(s.item."multiLocationId", ''), s.item.guid, 'name:' || name_of(s) || '|');

CREATE MACRO row_of(
    line_id, kind, line_type, product_id, product_name, sku, quantity, unit_price, gross, discount, tax, total,
    source_line_id, moment
) AS struct_pack(
    line_id := line_id, kind := kind, line_type := line_type, product_id := product_id, product_name := product_name,
    sku := sku, quantity := (quantity)::DECIMAL(18,5), unit_price := (unit_price)::DECIMAL(18,4),
    gross := (gross)::BIGINT, discount := (discount)::BIGINT, tax := (tax)::BIGINT, total := (total)::BIGINT,
    source_line_id := source_line_id, moment := (moment)::TIMESTAMP WITH TIME ZONE
);

-- An amount that is not revenue, or that has no line of goods: in `total` alone unless it has a net amount or tax.
CREATE MACRO bare_row(line_id, kind, line_type, product_id, label, net, tax, total, source_line_id, moment) AS row_of(
    line_id, kind, line_type, product_id, label, NULL::VARCHAR, 0, 0, net, 0, tax, total, source_line_id, moment
);

-- What was sold: `price` is after every discount, the check's share too, with modifiers and quantity, and without tax.
CREATE MACRO sold_row(s, factor) AS row_of(
    s.guid, 'sale', line_type_of(s), product_of(s), name_of(s), NULL::VARCHAR, coalesce(s.quantity, 1),
    coalesce(s."receiptLinePrice", 0),
    CASE WHEN is_debt(s) THEN 0 ELSE minor(coalesce(s."preDiscountPrice", s.price), factor) END,
    CASE WHEN is_debt(s) THEN 0
        ELSE minor(coalesce(s."preDiscountPrice", s.price), factor) - minor(s.price, factor) END,
    CASE WHEN is_debt(s) THEN 0 ELSE minor(s.tax, factor) END,
    minor(s.price, factor) + minor(s.tax, factor),
    NULL::VARCHAR, NULL
);

CREATE MACRO charge_name(c) AS coalesce(nullif(c.name, ''), CASE WHEN c.gratuity THEN 'Gratuity' ELSE 'Service charge' END);

CREATE MACRO charge_product(c) AS coalesce(c."serviceCharge".guid, 'name:' || charge_name(c) || '|');

CREATE MACRO charge_tax(c, factor) AS
    minor(list_sum(list_transform(c."appliedTaxes", lambda t: t."taxAmount")), factor);

-- A service charge is revenue; gratuity goes to the staff like a tip, and only its tax stands beside it.
CREATE MACRO charge_rows(c, position, kind, sign, prefix, amount, tax, source_line_id, moment) AS CASE
    WHEN NOT coalesce(c.gratuity, false) THEN [bare_row(
        prefix || coalesce(c.guid, position), kind, 'service_charge', charge_product(c), charge_name(c),
        sign * amount, sign * tax, sign * (amount + tax), source_line_id, moment
    )]
    ELSE list_concat(
        [bare_row(
            prefix || coalesce(c.guid, position), kind, 'tip', 'tip', charge_name(c), 0, 0, sign * amount,
            source_line_id, moment
        )],
        CASE WHEN tax <> 0 THEN [bare_row(
            prefix || coalesce(c.guid, position) || ':tax', kind, 'service_charge', charge_product(c),
            charge_name(c) || ' (tax)', 0, sign * tax, sign * tax, source_line_id, moment
        )] ELSE [] END
    ) END;

-- A quantity in hundred-thousandths, so that its shares are found in whole numbers: a division of decimals would be a DOUBLE.
CREATE MACRO scaled(quantity) AS (coalesce(quantity, 1) * 100000)::HUGEINT;

-- A share of a whole number, rounded half up.
CREATE MACRO share_of(whole, part, parts) AS (2 * whole * part + parts) // (2 * parts);

-- How many units came back for an amount: the whole number of them whose share of the price is that amount, else the
-- part of the quantity that it stands for. Toast tells the amount alone.
CREATE MACRO units_back(quantity, price, back) AS CASE
    WHEN price <= 0 OR quantity <= 0 THEN 0::DECIMAL(18,5)
    WHEN abs(price * share_of(quantity, back, price * 100000) * 100000 - back * quantity) < quantity
        THEN share_of(quantity, back, price * 100000)::DECIMAL(18,5)
    ELSE (share_of(quantity, back, price)::DECIMAL(18,0) * 0.00001)::DECIMAL(18,5) END;

CREATE MACRO returned_quantity(s, factor) AS CASE
    WHEN minor(s."refundDetails"."refundAmount", factor) >= minor(s.price, factor) THEN coalesce(s.quantity, 1)
    ELSE units_back(
        scaled(s.quantity), minor(s.price, factor)::HUGEINT, minor(s."refundDetails"."refundAmount", factor)::HUGEINT
    ) END;

-- The part of a line's price before discounts that belongs to what came back, in minor units.
CREATE MACRO gross_back(s, factor) AS
    minor(s."refundDetails"."refundAmount", factor)
    + CASE
        WHEN minor(s."refundDetails"."refundAmount", factor) >= minor(s.price, factor)
            THEN minor(coalesce(s."preDiscountPrice", s.price), factor) - minor(s.price, factor)
        WHEN minor(s.price, factor) = 0 THEN 0::BIGINT
        ELSE share_of(
            (minor(coalesce(s."preDiscountPrice", s.price), factor) - minor(s.price, factor))::HUGEINT,
            minor(s."refundDetails"."refundAmount", factor), minor(s.price, factor)
        )::BIGINT
    END;

CREATE MACRO returned_row(s, moment, factor) AS row_of(
    'return:' || s.guid, 'return', line_type_of(s), product_of(s), name_of(s), NULL::VARCHAR, -returned_quantity(s, factor),
    coalesce(s."receiptLinePrice", 0),
    CASE WHEN is_debt(s) THEN 0 ELSE -gross_back(s, factor) END,
    CASE WHEN is_debt(s) THEN 0 ELSE -(gross_back(s, factor) - minor(s."refundDetails"."refundAmount", factor)) END,
    CASE WHEN is_debt(s) THEN 0 ELSE -minor(s."refundDetails"."taxRefundAmount", factor) END,
    -minor(s."refundDetails"."refundAmount", factor) - minor(s."refundDetails"."taxRefundAmount", factor),
    s.guid, moment
);

CREATE MACRO sold_rows(selections, charges, factor) AS list_concat(
    coalesce(list_transform(selections, lambda s: sold_row(s, factor)), []),
    coalesce(flatten(list_transform(charges, lambda c, i: charge_rows(
        c, i::VARCHAR, 'sale', 1, 'service_charge:', minor(c."chargeAmount", factor), charge_tax(c, factor),
        NULL::VARCHAR, NULL
    ))), [])
);

-- A line that was on the house comes back for nothing: that it came back, its refund alone says.
CREATE MACRO has_refund(r) AS
    coalesce(r."refundAmount", 0) <> 0 OR coalesce(r."taxRefundAmount", 0) <> 0 OR r."refundTransaction".guid IS NOT NULL;

CREATE MACRO itemised_rows(selections, charges, moment, factor) AS list_concat(
    coalesce(list_transform(
        list_filter(selections, lambda s: has_refund(s."refundDetails")), lambda s: returned_row(s, moment, factor)
    ), []),
    coalesce(flatten(list_transform(
        list_filter(charges, lambda c: has_refund(c."refundDetails")), lambda c, i: charge_rows(
            c, i::VARCHAR, 'return', -1, 'return:service_charge:', minor(c."refundDetails"."refundAmount", factor),
            minor(c."refundDetails"."taxRefundAmount", factor), 'service_charge:' || coalesce(c.guid, i::VARCHAR), moment
        )
    )), [])
);

CREATE MACRO void_rows(selections) AS coalesce(list_transform(selections, lambda s: row_of(
    s.guid, 'void', line_type_of(s), product_of(s), name_of(s), NULL::VARCHAR, 0, 0, 0, 0, 0, 0, NULL::VARCHAR, NULL
)), []);

CREATE MACRO paid_by(payments, types, factor) AS added(list_transform(
    list_filter(payments, lambda p: list_contains(types, p."type")),
    lambda p: minor(p.amount, factor) + minor(p."tipAmount", factor)
));

CREATE MACRO in_words(minor_amount, factor, currency) AS
    (minor_amount * factor)::DECIMAL(38,4)::VARCHAR || ' ' || currency;

-- The query -----------------------------------------------------------------------------------------------------------
WITH live AS (
    SELECT
        *,
        coalesce("openedDate", "createdDate") AS opened,
        coalesce(voided, false) OR coalesce(deleted, false)
            OR (len(checks) > 0 AND len(list_filter(checks, lambda c: counts(c))) = 0) AS is_canceled,
        list_filter(checks, lambda c: counts(c)) AS live_checks,
        minor_unit(flux_currency) AS factor
    FROM orders
    -- Rung up for practice: never a sale, not even a cancelled one.
    WHERE NOT coalesce("createdInTestMode", false)
),

read AS (
    SELECT
        *,
        flatten(list_transform(live_checks, lambda c: coalesce(
            list_filter(c.selections, lambda s: NOT coalesce(s.voided, false)), []))) AS selections,
        flatten(list_transform(live_checks, lambda c: coalesce(c."appliedServiceCharges", []))) AS charges,
        flatten(list_transform(live_checks, lambda c: coalesce(
            list_filter(c.payments, lambda p: moved(p)), []))) AS payments,
        flatten(list_transform(checks, lambda c: coalesce(c.selections, []))) AS every_selection
    FROM live
    WHERE is_canceled
        OR "closedDate" IS NOT NULL
        OR (len(live_checks) > 0 AND len(list_filter(
            live_checks, lambda c: coalesce(c."paymentStatus" NOT IN ('PAID', 'CLOSED'), true))) = 0)
),

summed AS (
    SELECT
        *,
        list_max(list_transform(payments, lambda p: p.refund."refundDate")) AS refunded_at,
        added(list_transform(payments, lambda p: minor(p."tipAmount", factor))) AS tip,
        added(list_transform(payments, lambda p: minor(p.refund."tipRefundAmount", factor))) AS tip_back,
        added(list_transform(payments, lambda p: minor(p.refund."refundAmount", factor))) AS back,
        added(list_transform(live_checks, lambda c: minor(c."totalAmount", factor)))
            + added(list_transform(
                list_filter(charges, lambda c: coalesce(c.gratuity, false)), lambda c: minor(c."chargeAmount", factor)
            )) AS owed,
        added(list_transform(selections, lambda s: minor(s."refundDetails"."refundAmount", factor)
            + minor(s."refundDetails"."taxRefundAmount", factor)))
            + added(list_transform(charges, lambda c: minor(c."refundDetails"."refundAmount", factor)
            + minor(c."refundDetails"."taxRefundAmount", factor))) AS itemised_back
    FROM read
),

expanded AS (
    SELECT
        *,
        owed + tip - back - tip_back AS provider_total,
        CASE
            WHEN factor IS NULL THEN []
            WHEN is_canceled THEN void_rows(every_selection)
            ELSE list_concat(
                sold_rows(selections, charges, factor),
                CASE WHEN tip <> 0
                    THEN [bare_row('tip', 'sale', 'tip', 'tip', 'Tip', 0, 0, tip, NULL::VARCHAR, NULL)] ELSE [] END,
                itemised_rows(selections, charges, coalesce(refunded_at, opened), factor),
                -- Money given back for no line that is named: which goods it was for is not known, nor the tax in it.
                CASE WHEN back <> itemised_back THEN [bare_row(
                    'return:amount', 'return', 'custom_amount', 'name:Refund|', 'Refund', itemised_back - back, 0,
                    itemised_back - back, NULL::VARCHAR, coalesce(refunded_at, opened)
                )] ELSE [] END,
                CASE WHEN tip_back <> 0 THEN [bare_row(
                    'return:tip', 'return', 'tip', 'tip', 'Tip', 0, 0, -tip_back, 'tip', coalesce(refunded_at, opened)
                )] ELSE [] END
            ) END AS order_rows
    FROM summed
),

judged AS (
    SELECT
        *,
        added(list_transform(order_rows, lambda r: r.total)) AS rows_total,
        CASE
            WHEN opened IS NULL THEN 'it has neither openedDate nor createdDate'
            WHEN factor IS NULL THEN 'its currency ' || coalesce(flux_currency, '(none)')
                || ' is not one that ISO 4217 gives a minor unit'
            WHEN len(list_filter(order_rows, lambda r: r.line_id IS NULL)) > 0 THEN 'one of its selections has no guid'
            WHEN len(order_rows) <> len(list_distinct(list_transform(order_rows, lambda r: r.line_id)))
                THEN 'two of its selections have the same guid'
            WHEN is_canceled THEN NULL
            WHEN itemised_back > back THEN 'its lines were refunded ' || in_words(itemised_back, factor, flux_currency)
                || ', but its payments only ' || in_words(back, factor, flux_currency)
            WHEN added(list_transform(order_rows, lambda r: r.total)) <> provider_total THEN
                'its rows add up to ' || in_words(added(list_transform(order_rows, lambda r: r.total)), factor, flux_currency)
                || ', but its checks, tips and refunds to ' || in_words(provider_total, factor, flux_currency)
        END AS problem
    FROM expanded
),

placed AS (
    SELECT
        connection, tenant, flux_location_id, guid, flux_currency, coalesce(factor, 0) AS factor, opened, raw_date,
        source_system, source_version, problem,
        -- A bad order still has to come out: as one row.
        unnest(CASE WHEN problem IS NULL THEN order_rows ELSE [order_rows[1]] END) AS r,
        unnest([true]) AS first_row,
        unnest(CASE
            WHEN problem IS NOT NULL OR is_canceled THEN [NULL]
            ELSE [struct_pack(
                cash := paid_by(payments, ['CASH'], factor),
                card := paid_by(payments, ['CREDIT'], factor),
                gift_card := paid_by(payments, ['GIFTCARD', 'TOAST_SV'], factor),
                every := added(list_transform(payments, lambda p: minor(p.amount, factor) + minor(p."tipAmount", factor))),
                refund := back + tip_back
            )]
        END) AS paid  -- the shorter lists are filled with NULL: only the first row has what they hold
    FROM judged
)

SELECT
    connection,
    tenant,
    flux_location_id AS location_id,
    guid AS order_id,
    r.line_id AS line_id,
    r.kind AS kind,
    r.line_type AS line_type,
    r.product_id AS product_id,
    r.product_name AS product_name,
    NULL::VARCHAR AS variation,
    NULL::VARCHAR AS category,
    r.sku AS sku,
    r.quantity AS quantity,
    r.unit_price AS unit_price,
    (r.gross * factor)::DECIMAL(18,4) AS gross,
    (r.discount * factor)::DECIMAL(18,4) AS discount,
    ((r.gross - r.discount) * factor)::DECIMAL(18,4) AS net,
    (r.tax * factor)::DECIMAL(18,4) AS tax,
    0::DECIMAL(18,4) AS marketplace_tax,
    (r.total * factor)::DECIMAL(18,4) AS total,
    flux_currency AS currency,
    (coalesce(paid.cash, 0) * factor)::DECIMAL(18,4) AS tendered_cash,
    (coalesce(paid.card, 0) * factor)::DECIMAL(18,4) AS tendered_card,
    (coalesce(paid.gift_card, 0) * factor)::DECIMAL(18,4) AS tendered_gift_card,
    (coalesce(paid.every - paid.cash - paid.card - paid.gift_card, 0) * factor)::DECIMAL(18,4) AS tendered_other,
    (-coalesce(paid.refund, 0) * factor)::DECIMAL(18,4) AS tendered_refund,
    NULL::DECIMAL(18,4) AS due,
    CASE WHEN r.kind = 'return' THEN guid END AS source_order_id,
    r.source_line_id AS source_line_id,
    coalesce(r.moment, opened) AS occurred_at,
    raw_date AS business_date,
    raw_date,
    source_system,
    source_version,
    coalesce(first_row, false) AS first_row,
    problem
FROM placed
WHERE r IS NOT NULL OR problem IS NOT NULL;
