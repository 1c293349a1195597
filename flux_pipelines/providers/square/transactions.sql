-- Square orders -> rows of the `transactions` contract (flux_pipelines/domain/tables.py). DuckDB SQL.
--
-- Everything before the last statement is run once a session; the last statement is the query. It is one streaming pass
-- without joins or sorting, so its memory does not grow with the number of orders, and rows come out in the order of
-- the input.
--   in   `orders`      the columns of `orders_as_received`, and raw_date
--        `minor_unit(code)`  a macro: the exact factor from minor units to the currency's unit (0.01 for USD), NULL for a
--                      code that ISO 4217 does not know
--        `business_date_of(location_id, instant)`  a macro: the location's business date of an instant
--   out  the contract's columns but for those that the engine adds, amounts in minor units; `first_row`: whether the row is its order's first; `problem`: why the order cannot be
--        used (NULL for a good one). An order with a problem comes out as one row, so that it can be found and put in
--        quarantine whole.
--
-- Which orders are sales, and of which date: those that are fully paid, on the date of the final payment, as Square's own
-- report counts them (segment `closed_checks`, dimension `sale_timestamp` of the Reporting API's cube Orders). README.md,
-- "From orders to transactions", has the sources.
--
-- Facts about Square's fields are from its OpenAPI description (version 2025-08-20), schemas Order, OrderState,
-- OrderLineItem, OrderServiceCharge, OrderReturn, OrderMoneyAmounts, Tender and TenderCardDetailsStatus.

CREATE TYPE money AS STRUCT(amount BIGINT, currency VARCHAR);
CREATE TYPE amounts AS STRUCT(total_money money, tip_money money);
CREATE TYPE rounding AS STRUCT(amount_money money);
CREATE TYPE applied_tax AS STRUCT(tax_uid VARCHAR, applied_money money);
CREATE TYPE applied_charge AS STRUCT(service_charge_uid VARCHAR, applied_money money);
CREATE TYPE modifier AS STRUCT(quantity VARCHAR, base_price_money money, total_price_money money);
-- OrderLineItem and OrderReturnLineItem in one, so that both are read by the same rules.
CREATE TYPE line AS STRUCT(
    uid VARCHAR, source_line_item_uid VARCHAR, catalog_object_id VARCHAR, name VARCHAR, variation_name VARCHAR,
    item_type VARCHAR, quantity VARCHAR, base_price_money money, variation_total_price_money money,
    total_discount_money money, total_tax_money money, total_money money,
    modifiers modifier[], return_modifiers modifier[], applied_taxes applied_tax[],
    applied_discounts STRUCT(applied_money money)[], applied_service_charges applied_charge[]
);
-- OrderServiceCharge and OrderReturnServiceCharge in one.
CREATE TYPE charge AS STRUCT(
    uid VARCHAR, source_service_charge_uid VARCHAR, catalog_object_id VARCHAR, name VARCHAR, amount_money money,
    applied_money money, total_money money, total_tax_money money, calculation_phase VARCHAR, treatment_type VARCHAR,
    applied_taxes applied_tax[]
);
CREATE TYPE tax AS STRUCT(uid VARCHAR, "type" VARCHAR);

CREATE TEMP TABLE orders_as_received (
    id VARCHAR, location_id VARCHAR, state VARCHAR, created_at TIMESTAMP WITH TIME ZONE,
    closed_at TIMESTAMP WITH TIME ZONE,
    line_items line[], service_charges charge[], taxes tax[], rounding_adjustment rounding,
    "returns" STRUCT(
        uid VARCHAR, source_order_id VARCHAR, return_line_items line[], return_service_charges charge[],
        return_taxes tax[], return_tips STRUCT(uid VARCHAR, applied_money money)[], rounding_adjustment rounding,
        return_amounts amounts
    )[],
    total_money money, total_tip_money money, return_amounts amounts, net_amounts amounts, net_amount_due_money money,
    tenders STRUCT(
        "type" VARCHAR, created_at TIMESTAMP WITH TIME ZONE, amount_money money, tip_money money,
        card_details STRUCT(status VARCHAR)
    )[],
    refunds STRUCT(status VARCHAR, created_at TIMESTAMP WITH TIME ZONE, amount_money money)[]
);

CREATE MACRO minor(m) AS coalesce(m.amount, 0::BIGINT);

CREATE MACRO added_up(applied) AS added(list_transform(applied, lambda a: a.applied_money.amount));

-- Apportioned charges are spread over the lines and are inside the lines' totals; any other stands beside the lines.
CREATE MACRO is_apportioned(c) AS
    coalesce(c.treatment_type = 'APPORTIONED_TREATMENT' OR c.calculation_phase LIKE 'APPORTIONED%', false);

CREATE MACRO apportioned_uids(charges) AS
    coalesce(list_transform(list_filter(charges, lambda c: is_apportioned(c)), lambda c: c.uid), []::VARCHAR[]);

CREATE MACRO inclusive_uids(taxes) AS
    coalesce(list_transform(list_filter(taxes, lambda t: t."type" = 'INCLUSIVE'), lambda t: t.uid), []::VARCHAR[]);

CREATE MACRO charged_within(l, apportioned) AS CASE
    WHEN len(l.applied_service_charges) > 0 THEN
        added_up(list_filter(l.applied_service_charges, lambda a: list_contains(apportioned, a.service_charge_uid)))
    ELSE 0::BIGINT END;

CREATE MACRO tax_of(x) AS coalesce(x.total_tax_money.amount, added_up(x.applied_taxes));

CREATE MACRO added_tax(x, inclusive) AS CASE
    WHEN len(inclusive) = 0 THEN tax_of(x)
    ELSE added_up(list_filter(x.applied_taxes, lambda a: NOT list_contains(inclusive, a.tax_uid))) END;

CREATE MACRO discount_of(l) AS coalesce(l.total_discount_money.amount, added_up(l.applied_discounts));

CREATE MACRO units(l) AS coalesce(TRY_CAST(l.quantity AS DECIMAL(18,5)), 0::DECIMAL(18,5));

-- Price times quantity, modifiers included, for a line that comes without a total of its own.
CREATE MACRO list_price(l) AS
    coalesce(l.variation_total_price_money.amount, round(minor(l.base_price_money) * units(l))::BIGINT)
    + added(list_transform(
        coalesce(l.modifiers, l.return_modifiers),
        lambda m: coalesce(
            m.total_price_money.amount,
            round(minor(m.base_price_money) * coalesce(TRY_CAST(m.quantity AS DECIMAL(18,5)), 1) * units(l))::BIGINT
        )
    ));

CREATE MACRO line_type_of(l) AS CASE l.item_type
    WHEN 'CUSTOM_AMOUNT' THEN 'custom_amount' WHEN 'GIFT_CARD' THEN 'gift_card' ELSE 'item' END;

CREATE MACRO name_of(l) AS coalesce(nullif(l.name, ''), CASE l.item_type
    WHEN 'CUSTOM_AMOUNT' THEN 'Custom amount' WHEN 'GIFT_CARD' THEN 'Gift card' ELSE 'Unnamed item' END);

CREATE MACRO row_of(
    line_id, kind, line_type, product_id, product_name, variation, quantity, unit_price, gross, discount, tax, total,
    source_order_id, source_line_id
) AS struct_pack(
    line_id := line_id, kind := kind, line_type := line_type, product_id := product_id, product_name := product_name,
    variation := variation, quantity := (quantity)::DECIMAL(18,5), unit_price := (unit_price)::BIGINT,
    gross := (gross)::BIGINT, discount := (discount)::BIGINT, tax := (tax)::BIGINT, total := (total)::BIGINT,
    source_order_id := source_order_id, source_line_id := source_line_id
);

CREATE MACRO product_of(l) AS
    coalesce(l.catalog_object_id, 'name:' || name_of(l) || '|' || coalesce(l.variation_name, ''));

-- What is needed of each line, worked out once; `listed` is its list price, `added` the tax that is not in that, `within`
-- what it carries of apportioned charges.
CREATE MACRO priced(lines, apportioned, inclusive) AS list_transform(lines, lambda l: struct_pack(
    uid := l.uid,
    source_uid := l.source_line_item_uid,
    is_gift_card := coalesce(l.item_type = 'GIFT_CARD', false),
    line_type := line_type_of(l),
    product_id := product_of(l),
    product_name := name_of(l),
    variation := l.variation_name,
    units := units(l),
    base := minor(l.base_price_money),
    listed := list_price(l),
    tax := tax_of(l),
    added := added_tax(l, inclusive),
    taxes_told := len(l.applied_taxes) IS NOT NULL,
    discount := discount_of(l),
    within := charged_within(l, apportioned),
    own_total := l.total_money.amount
));

CREATE MACRO total_of(p) AS coalesce(p.own_total, p.listed - p.discount + p.added + p.within);

-- `gross` is worked back from the total (total - tax - apportioned charges + discount), because Square's own
-- gross_sales_money is tax-exclusive in some countries (US, CA, JP) and tax-inclusive in the others.
CREATE MACRO gross_of(p) AS total_of(p) - p.tax - p.within + p.discount;

-- The price of one unit without the tax that is in it, in ten-thousandths of the currency's unit (`fine` of them make a
-- minor unit). Square tells the tax of the line alone, so the price has the same part of it as the line's list price, and
-- quantity times price is `gross` again. Which tax is included a line without applied_taxes does not tell: what its gross
-- is short of its list price is.
CREATE MACRO price_before_tax(p, fine) AS CASE
    WHEN gross_of(p) BETWEEN 0 AND p.listed - 1 AND (NOT p.taxes_told OR p.tax <> p.added)
        THEN share_of(p.base::HUGEINT * fine, gross_of(p), p.listed)::BIGINT
    ELSE p.base * fine END;

-- One line, at its sign (1 sold, -1 returned). A gift card is a liability, not revenue: its amount is in `total` alone.
CREATE MACRO line_row(p, position, kind, sign, prefix, source_order_id, fine) AS row_of(
    coalesce(p.uid, prefix || position),
    kind,
    p.line_type,
    p.product_id,
    p.product_name,
    p.variation,
    sign * p.units,
    price_before_tax(p, fine),
    CASE WHEN p.is_gift_card THEN 0 ELSE sign * gross_of(p) END,
    CASE WHEN p.is_gift_card THEN 0 ELSE sign * p.discount END,
    CASE WHEN p.is_gift_card THEN 0 ELSE sign * p.tax END,
    sign * (total_of(p) - p.within),
    source_order_id,
    p.source_uid
);

-- What lines carry of one apportioned charge.
CREATE MACRO carried_by(lines, charge_uid) AS added(list_transform(lines, lambda l: charged_within(l, [charge_uid])));

-- One order-level charge. The tax on an apportioned charge is inside the lines' tax, so the charge itself has none.
CREATE MACRO charge_total(c, lines, inclusive) AS CASE
    WHEN is_apportioned(c) THEN carried_by(lines, c.uid)
    ELSE coalesce(
        c.total_money.amount, coalesce(c.applied_money.amount, minor(c.amount_money)) + added_tax(c, inclusive)
    ) END;

CREATE MACRO charge_tax(c) AS CASE WHEN is_apportioned(c) THEN 0::BIGINT ELSE tax_of(c) END;

CREATE MACRO charge_row(c, position, kind, sign, prefix, source_order_id, lines, inclusive) AS row_of(
    prefix || coalesce(c.uid, position::VARCHAR),
    kind,
    'service_charge',
    coalesce(c.catalog_object_id, 'name:' || coalesce(c.name, 'Service charge') || '|'),
    coalesce(c.name, 'Service charge'),
    NULL::VARCHAR,
    0,
    0,
    sign * (charge_total(c, lines, inclusive) - charge_tax(c)),
    0,
    sign * charge_tax(c),
    sign * charge_total(c, lines, inclusive),
    source_order_id,
    'service_charge:' || c.source_service_charge_uid
);

-- A tip or a cash rounding: an amount of money that is not revenue.
CREATE MACRO amount_row(line_id, kind, line_type, label, amount, source_order_id) AS row_of(
    line_id, kind, line_type, line_type, label, NULL::VARCHAR, 0, 0, 0, 0, 0, amount, source_order_id, NULL::VARCHAR
);

CREATE MACRO rows_of_sale(line_items, service_charges, tip, rounding, apportioned, inclusive, fine) AS list_concat(
    coalesce(list_transform(
        priced(line_items, apportioned, inclusive),
        lambda p, i: line_row(p, i, 'sale', 1, 'line:', NULL::VARCHAR, fine)
    ), []),
    CASE WHEN len(service_charges) > 0 THEN list_transform(service_charges, lambda c, i: charge_row(
        c, i, 'sale', 1, 'service_charge:', NULL::VARCHAR, line_items, inclusive
    )) ELSE [] END,
    CASE WHEN tip <> 0 THEN [amount_row('tip', 'sale', 'tip', 'Tip', tip, NULL::VARCHAR)] ELSE [] END,
    CASE WHEN rounding <> 0
        THEN [amount_row('rounding', 'sale', 'rounding', 'Rounding', rounding, NULL::VARCHAR)] ELSE [] END
);

-- A tip that is given back with no `return_tips` to tell of it: those are newer than returns are.
CREATE MACRO untold_tip(r) AS minor(r.return_amounts.tip_money) - added_up(r.return_tips);

-- `n` numbers the returns of an order (an exchange can give back parts of several sales).
CREATE MACRO rows_of_return(r, n, fine) AS list_concat(
    coalesce(list_transform(
        priced(r.return_line_items, apportioned_uids(r.return_service_charges), inclusive_uids(r.return_taxes)),
        lambda p, i: line_row(p, i, 'return', -1, 'return:' || n || ':', r.source_order_id, fine)
    ), []),
    coalesce(list_transform(r.return_service_charges, lambda c, i: charge_row(
        c, n || ':' || i, 'return', -1, 'return_service_charge:', r.source_order_id, r.return_line_items,
        inclusive_uids(r.return_taxes)
    )), []),
    coalesce(list_transform(r.return_tips, lambda t, i: amount_row(
        'return_tip:' || coalesce(t.uid, n || ':' || i), 'return', 'tip', 'Tip', -minor(t.applied_money),
        r.source_order_id
    )), []),
    CASE WHEN untold_tip(r) > 0
        THEN [amount_row('return_tip:' || n, 'return', 'tip', 'Tip', -untold_tip(r), r.source_order_id)] ELSE [] END,
    CASE WHEN minor(r.rounding_adjustment.amount_money) <> 0 THEN [amount_row(
        'return_rounding:' || coalesce(r.uid, n::VARCHAR), 'return', 'rounding', 'Rounding',
        -r.rounding_adjustment.amount_money.amount, r.source_order_id
    )] ELSE [] END
);

CREATE MACRO rows_of_void(line_items) AS coalesce(list_transform(line_items, lambda l, i: row_of(
    coalesce(l.uid, 'line:' || i), 'void', line_type_of(l), product_of(l), name_of(l), l.variation_name,
    0, 0, 0, 0, 0, 0, NULL::VARCHAR, NULL::VARCHAR
)), []);

CREATE MACRO given(tenders) AS added(list_transform(tenders, lambda t: t.amount_money.amount));

CREATE MACRO paid_by(tenders, types) AS given(list_filter(tenders, lambda t: list_contains(types, t."type")));

-- What of the tenders is paid: a card that is only authorised leaves the order's amount due as it is.
CREATE MACRO taken(tenders) AS coalesce(list_filter(
    tenders, lambda t: coalesce(t.card_details.status, 'CAPTURED') NOT IN ('AUTHORIZED', 'VOIDED', 'FAILED')
), []);

-- When the last of what was paid was; of a return, which has refunds in their place, when the last of those was.
CREATE MACRO final_payment(taken, tenders, refunds) AS coalesce(
    list_max(list_transform(taken, lambda t: t.created_at)),
    list_max(list_transform(tenders, lambda t: t.created_at)),
    list_max(list_transform(refunds, lambda r: r.created_at))
);

-- A quantity that DECIMAL(18,5) cannot hold exactly.
CREATE MACRO has_bad_quantity(lines) AS len(list_filter(lines, lambda l:
    coalesce(TRY_CAST(l.quantity AS DECIMAL(38,15)) <> TRY_CAST(l.quantity AS DECIMAL(18,5)), true)
)) > 0;

-- The query -----------------------------------------------------------------------------------------------------------
WITH read AS (
    SELECT
        *,
        coalesce(
            total_tip_money.amount, list_sum(list_transform(tenders, lambda t: t.tip_money.amount))::BIGINT, 0::BIGINT
        ) AS tip,
        minor(rounding_adjustment.amount_money) AS rounding,
        apportioned_uids(service_charges) AS apportioned,
        inclusive_uids(taxes) AS inclusive,
        coalesce(
            total_money.currency, net_amounts.total_money.currency, return_amounts.total_money.currency,
            line_items[1].total_money.currency, line_items[1].base_price_money.currency,
            "returns"[1].return_line_items[1].total_money.currency,
            -- Money with nothing that it was paid for has a currency all the same.
            tenders[1].amount_money.currency, refunds[1].amount_money.currency
        ) AS currency,
        coalesce(
            return_amounts.total_money.amount,
            list_sum(list_transform("returns", lambda r: r.return_amounts.total_money.amount))::BIGINT
        ) AS returned,
        -- What the customer owes in the end: Square's net amount, or else the sale less what was returned. An order that is
        -- a return alone has no total_money.
        CASE
            WHEN net_amounts.total_money.amount IS NOT NULL THEN net_amounts.total_money.amount
            WHEN total_money.amount IS NOT NULL OR returned IS NOT NULL
                THEN minor(total_money) - coalesce(returned, 0)
        END AS provider_total,
        taken(tenders) AS paid_with,
        given(paid_with) AS paid,
        coalesce(final_payment(paid_with, tenders, refunds), closed_at, created_at) AS paid_at
    FROM orders
    WHERE state IN ('COMPLETED', 'CANCELED', 'OPEN')
),

recognised AS (
    SELECT
        *,
        minor_unit(currency) AS factor,
        (minor_unit(currency) * 10000)::BIGINT AS fine,
        -- "Completed orders are fully paid" (OrderState). An open one is when nothing is due any more and something was
        -- paid: a cart that nobody bought has no tenders. Documents from before net_amount_due_money tell by what was paid.
        state = 'COMPLETED' OR (state = 'OPEN' AND len(paid_with) > 0 AND CASE
            WHEN provider_total IS NULL THEN false
            WHEN net_amount_due_money IS NOT NULL THEN minor(net_amount_due_money) <= 0
            ELSE paid >= provider_total
        END) AS counts,
        state = 'OPEN' AND provider_total IS NULL AND paid <> 0 AS untold,
        -- Money that is held until the order is paid in full and counts: a deposit.
        state = 'OPEN' AND provider_total IS NOT NULL AND paid <> 0 AND NOT counts AS is_part_paid
    FROM read
),

expanded AS (
    SELECT
        *,
        list_concat(
            rows_of_sale(
                CASE WHEN counts THEN line_items END,
                CASE WHEN counts THEN service_charges END,
                CASE WHEN counts THEN tip ELSE 0 END,
                CASE WHEN counts THEN rounding ELSE 0 END,
                apportioned,
                inclusive,
                fine
            ),
            CASE WHEN counts AND len("returns") > 0
                THEN flatten(list_transform("returns", lambda r, n: rows_of_return(r, n, fine))) ELSE [] END,
            CASE WHEN state = 'CANCELED' THEN rows_of_void(line_items) ELSE [] END,
            CASE WHEN is_part_paid THEN [amount_row('open', 'open', 'custom_amount', 'Paid in part', 0, NULL::VARCHAR)] ELSE [] END
        ) AS order_rows
    FROM recognised
    WHERE counts OR untold OR is_part_paid OR state = 'CANCELED'
),

judged AS (
    SELECT
        *,
        added(list_transform(order_rows, lambda r: r.total)) AS rows_total,
        CASE
            WHEN created_at IS NULL THEN 'it has no created_at'
            WHEN currency IS NULL AND len(order_rows) = 0 THEN NULL
            WHEN factor IS NULL THEN no_currency(currency)
            WHEN len(order_rows) <> len(list_distinct(list_transform(order_rows, lambda r: r.line_id)))
                THEN 'two of its lines have the same uid'
            WHEN state = 'CANCELED' OR is_part_paid THEN NULL
            WHEN untold THEN 'it has payments, but no total that would tell whether it is paid'
            WHEN has_bad_quantity(line_items)
                OR len(list_filter("returns", lambda r: has_bad_quantity(r.return_line_items))) > 0
                THEN 'a line has a quantity that is not a number of at most 5 decimal places'
            WHEN provider_total IS NULL AND len(order_rows) > 0 THEN 'it has no total to check its rows against'
            WHEN rows_total <> coalesce(provider_total, 0) THEN
                'its rows add up to ' || in_words(rows_total, currency)
                || ', but its own total is ' || in_words(provider_total, currency)
            -- Opening the cash drawer leaves an order with a NO_SALE tender of nothing: there is nothing to count.
            WHEN len(order_rows) = 0 AND (
                len(list_filter(tenders, lambda t: minor(t.amount_money) <> 0)) > 0
                OR len(list_filter(refunds, lambda r: minor(r.amount_money) <> 0)) > 0
            )
                THEN 'it has payments or refunds, but nothing was sold or returned'
        END AS problem
    FROM expanded
),

placed AS (
    SELECT
        location_id, id, currency, created_at, raw_date,
        problem,
        -- What Square says is still to be paid; of what counts later, what is held of it until then.
        CASE WHEN is_part_paid THEN -paid WHEN counts THEN net_amount_due_money.amount END AS due,
        CASE WHEN problem IS NULL AND (counts OR is_part_paid) THEN business_date_of(location_id, paid_at) END AS paid_on,
        -- A bad order still has to come out: as one row.
        unnest(CASE WHEN problem IS NULL THEN order_rows ELSE [order_rows[1]] END) AS r,
        unnest([true]) AS first_row,
        unnest(CASE
            WHEN problem IS NOT NULL OR state = 'CANCELED' OR is_part_paid THEN [NULL]
            ELSE [struct_pack(
                cash := paid_by(tenders, ['CASH']),
                card := paid_by(tenders, ['CARD', 'WALLET']),
                gift_card := paid_by(tenders, ['SQUARE_GIFT_CARD']),
                every := given(tenders),
                refund := given(list_filter(refunds, lambda x: x.status IN ('APPROVED', 'PENDING')))
            )]
        END) AS paid  -- the shorter lists are filled with NULL: only the first row has what they hold
    FROM judged
)

SELECT
    location_id,
    id AS order_id,
    r.line_id AS line_id,
    r.kind AS kind,
    r.line_type AS line_type,
    r.product_id AS product_id,
    r.product_name AS product_name,
    r.variation AS variation,
    r.quantity AS quantity,
    (r.unit_price * 0.0001)::DECIMAL(18,4) AS unit_price,
    r.gross AS gross,
    r.discount AS discount,
    r.tax AS tax,
    r.total AS total,
    currency,
    paid.cash AS tendered_cash,
    paid.card AS tendered_card,
    paid.gift_card AS tendered_gift_card,
    paid.every - paid.cash - paid.card - paid.gift_card AS tendered_other,
    -paid.refund AS tendered_refund,
    due,
    r.source_order_id AS source_order_id,
    r.source_line_id AS source_line_id,
    created_at AS occurred_at,
    -- A void counts on no date of its own: it was never paid.
    coalesce(paid_on, raw_date) AS business_date,
    raw_date,
    first_row,
    problem
FROM placed
WHERE r IS NOT NULL OR problem IS NOT NULL;
