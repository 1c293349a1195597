-- Toast orders -> rows of the `transactions` contract (flux_pipelines/domain/tables). DuckDB SQL.
--
-- Everything before the last statement is run once a session; the last statement is the query. It is one streaming pass
-- without joins or sorting, so its memory does not grow with the number of orders, and rows come out in the order of
-- the input.
--   in   `orders`      the columns of `orders_as_received`, and raw_date (Toast's `businessDate`)
--        `minor_unit(code)`  a macro: the exact factor from minor units to the currency's unit (0.01 for USD), NULL for a
--                      code that ISO 4217 does not know
--        `business_date_of(location_id, instant)`  a macro: the restaurant's business date of an instant
--   out  the contract's columns but for those that the engine adds, amounts in minor units; `first_row`: whether the row is its order's first; `problem`: why the order cannot be
--        used (NULL for a good one). An order with a problem comes out as one row, so that it can be found and put in
--        quarantine whole.
--
-- Amounts are JSON numbers in the currency's unit. They are read as DECIMAL(18,4), never as floating point, and rounded
-- to the minor unit: floats that Toast added up leave crumbs (12.990000000000002). Facts about fields are from Toast's
-- orders API 2.9.0 (schemas Order, Check, Selection, AppliedServiceCharge, AppliedTaxRate, Payment, Refund, RefundDetails),
-- the configuration API 2.5.0 (ServiceCharge.destination), the developer guide's "Order object summary", "Calculating net
-- sales" and "Marketplace facilitator tax information", and the platform guide's "Issuing a refund" and "Viewing refunds".
--
-- What was sold counts on the order's `businessDate`, open and unpaid checks too. What was given back counts on the day
-- of the refund and only there: "Refunds do not affect financial data on the day of the original order."

CREATE TYPE reference AS STRUCT(guid VARCHAR, "multiLocationId" VARCHAR);
CREATE TYPE refunded AS STRUCT(
    "refundAmount" DECIMAL(18,4), "taxRefundAmount" DECIMAL(18,4), "refundTransaction" STRUCT(guid VARCHAR)
);
CREATE TYPE taxed AS STRUCT("taxAmount" DECIMAL(18,4), "facilitatorCollectAndRemitTax" BOOLEAN);
-- Modifiers stay text: their amounts are inside their parent's, and their quantity is their parent's. Only one that was
-- given back alone is read, and taxes, when a marketplace remits some.
CREATE TYPE selection AS STRUCT(
    guid VARCHAR, item reference, "displayName" VARCHAR, "selectionType" VARCHAR, deferred BOOLEAN, voided BOOLEAN,
    quantity DECIMAL(18,5), "receiptLinePrice" DECIMAL(18,4), "preDiscountPrice" DECIMAL(18,4), price DECIMAL(18,4),
    tax DECIMAL(18,4), "taxInclusion" VARCHAR, "appliedTaxes" taxed[], "refundDetails" refunded, modifiers JSON
);
CREATE TYPE charge AS STRUCT(
    guid VARCHAR, name VARCHAR, "chargeAmount" DECIMAL(18,4), gratuity BOOLEAN, destination VARCHAR,
    "serviceChargeCategory" VARCHAR, "serviceCharge" reference, "appliedTaxes" taxed[], "refundDetails" refunded
);
CREATE TYPE payment AS STRUCT(
    "type" VARCHAR, amount DECIMAL(18,4), "tipAmount" DECIMAL(18,4), "paymentStatus" VARCHAR, "voidInfo" JSON,
    refund STRUCT(
        "refundAmount" DECIMAL(18,4), "tipRefundAmount" DECIMAL(18,4), "refundDate" TIMESTAMP WITH TIME ZONE,
        "refundBusinessDate" VARCHAR, "refundTransaction" STRUCT(guid VARCHAR)
    )
);

CREATE TEMP TABLE orders_as_received (
    flux_location_id VARCHAR, flux_currency VARCHAR, guid VARCHAR, "openedDate" TIMESTAMP WITH TIME ZONE,
    "createdDate" TIMESTAMP WITH TIME ZONE, voided BOOLEAN, deleted BOOLEAN, "createdInTestMode" BOOLEAN,
    "excessFood" BOOLEAN,
    checks STRUCT(
        guid VARCHAR, "totalAmount" DECIMAL(18,4), "paymentStatus" VARCHAR, voided BOOLEAN, deleted BOOLEAN,
        selections selection[], "appliedServiceCharges" charge[], payments payment[]
    )[]
);

-- An amount in minor units. Half of one goes up, as in orders.py.
CREATE MACRO minor(amount, factor) AS round(coalesce(amount, 0) / factor)::BIGINT;

CREATE MACRO counts(c) AS NOT (coalesce(c.voided, false) OR coalesce(c.deleted, false));

-- A payment that moved money, or will. Statuses that are not known here may have. One whose void is being processed
-- will not.
CREATE MACRO moved(p) AS
    coalesce(p."paymentStatus" NOT IN (
        'VOIDED', 'VOIDED_AT_RISK', 'PROCESSING_VOID', 'CANCELLED', 'DENIED', 'ERROR', 'ERROR_NETWORK'
    ), true)
    AND coalesce(p."voidInfo"::VARCHAR, 'null') = 'null';

-- A gift card sold or charged, or money paid into a house account: a debt to the customer, not revenue.
CREATE MACRO line_type_of(s) AS CASE
    WHEN coalesce(s.deferred, false)
        OR coalesce(s."selectionType" IN ('TOAST_CARD_SELL', 'TOAST_CARD_RELOAD', 'HOUSE_ACCOUNT_PAY_BALANCE'), false)
        THEN 'gift_card'
    WHEN s.item.guid IS NULL THEN 'custom_amount' ELSE 'item' END;

CREATE MACRO name_of(s) AS coalesce(nullif(s."displayName", ''), CASE s."selectionType"
    WHEN 'TOAST_CARD_SELL' THEN 'Gift card' WHEN 'TOAST_CARD_RELOAD' THEN 'Gift card'
    WHEN 'HOUSE_ACCOUNT_PAY_BALANCE' THEN 'House account payment' ELSE 'Unnamed item' END);

-- Whose a charge is: its category first, then whom it goes to. What goes to the staff is a tip, what goes to Toast or to a
-- third party is owed to them; all else, a surcharge for cards too, is the restaurant's.
CREATE MACRO charge_type(c) AS CASE
    WHEN c."serviceChargeCategory" = 'CASH_ROUNDING' THEN 'rounding'
    WHEN c."serviceChargeCategory" = 'FUNDRAISING_CAMPAIGN' OR c.destination IN ('TOAST', 'THIRD_PARTY') THEN 'third_party'
    WHEN coalesce(c.gratuity, false) OR c.destination = 'SERVER' THEN 'tip'
    ELSE 'service_charge' END;

CREATE MACRO charge_name(c) AS coalesce(nullif(c.name, ''), CASE WHEN c.gratuity THEN 'Gratuity' ELSE 'Service charge' END);

-- A line that was on the house comes back for nothing: that it came back, its refund alone says.
CREATE MACRO has_refund(r) AS
    coalesce(r."refundAmount", 0) <> 0 OR coalesce(r."taxRefundAmount", 0) <> 0 OR r."refundTransaction".guid IS NOT NULL;

CREATE MACRO weight_of(taxes) AS
    coalesce((list_sum(list_transform(taxes, lambda t: t."taxAmount")) * 10000)::BIGINT, 0::BIGINT);

CREATE MACRO weight_remitted(taxes) AS
    weight_of(list_filter(taxes, lambda t: coalesce(t."facilitatorCollectAndRemitTax", false)));

-- The part of a tax that a marketplace remits: "sum the taxAmount values from all AppliedTaxRate objects where
-- facilitatorCollectAndRemitTax is true". It is that share of all taxes applied, so that no crumb is left over.
CREATE MACRO remitted_of(tax, own, every) AS
    CASE own WHEN 0 THEN 0::BIGINT WHEN every THEN tax ELSE signed_share(tax, abs(own), abs(every)) END;

-- Taxes of modifiers, which are inside the selection's; read only where a marketplace remits one.
CREATE MACRO taxes_inside(modifiers) AS CASE
    WHEN regexp_matches(modifiers::VARCHAR, '"facilitatorCollectAndRemitTax"\s*:\s*true')
        THEN list_transform(json_extract(modifiers, '$..appliedTaxes[*]'), lambda t: from_json(
            t, '{"taxAmount": "DECIMAL(18,4)", "facilitatorCollectAndRemitTax": "BOOLEAN"}'
        )) END;

-- A line of a check, a selection or a charge, in whole minor units: `price` is after every discount, the check's share too,
-- with modifiers and quantity, and without tax; `listed` before discounts. The same item has another GUID in every
-- restaurant, and may get a new one when menus are published: `multiLocationId` does not.
CREATE MACRO line_of(s, inside, quantity, parent, factor) AS struct_pack(
    id := s.guid,
    type := line_type_of(s),
    product := coalesce(nullif(s.item."multiLocationId", ''), s.item.guid, 'name:' || name_of(s) || '|'),
    name := name_of(s),
    quantity := (quantity)::DECIMAL(18,5),
    receipt := coalesce(s."receiptLinePrice", 0),
    has_tax_in_it := coalesce(s."taxInclusion" = 'INCLUDED', false),
    price := minor(s.price, factor),
    listed := minor(coalesce(s."preDiscountPrice", s.price), factor),
    exact_tax := coalesce(s.tax, 0),
    own := weight_remitted(s."appliedTaxes") + weight_remitted(inside),
    every := weight_of(s."appliedTaxes") + weight_of(inside),
    given := has_refund(s."refundDetails"),
    back := minor(s."refundDetails"."refundAmount", factor),
    tax_back := minor(s."refundDetails"."taxRefundAmount", factor),
    tx := coalesce(s."refundDetails"."refundTransaction".guid, ''),
    parent := (parent)::VARCHAR
);

CREATE MACRO charge_line(c, position, tax, factor) AS struct_pack(
    id := 'service_charge:' || coalesce(c.guid, position),
    type := charge_type(c),
    product := CASE WHEN charge_type(c) IN ('tip', 'rounding') THEN charge_type(c)
        ELSE coalesce(c."serviceCharge".guid, 'name:' || charge_name(c) || '|') END,
    name := charge_name(c),
    quantity := 0::DECIMAL(18,5),
    receipt := 0::DECIMAL(18,4),
    has_tax_in_it := false,
    price := minor(c."chargeAmount", factor),
    listed := minor(c."chargeAmount", factor),
    exact_tax := coalesce(tax, 0)::DECIMAL(18,4),
    own := weight_remitted(c."appliedTaxes"),
    every := weight_of(c."appliedTaxes"),
    given := has_refund(c."refundDetails"),
    back := minor(c."refundDetails"."refundAmount", factor),
    tax_back := minor(c."refundDetails"."taxRefundAmount", factor),
    tx := coalesce(c."refundDetails"."refundTransaction".guid, ''),
    parent := NULL::VARCHAR
);

-- Modifiers that were given back without what they are part of: the amount of that has theirs in it, however deep.
CREATE MACRO modifiers_refunded(modifiers) AS list_filter(
    list_concat(json_extract(modifiers, '$[*]'), json_extract(modifiers, '$..modifiers[*]')),
    lambda m: has_refund(from_json(m -> 'refundDetails', '{"refundAmount": "DECIMAL(18,4)",
        "taxRefundAmount": "DECIMAL(18,4)", "refundTransaction": {"guid": "VARCHAR"}}'))
);

CREATE MACRO modifiers_alone(found) AS list_filter(found, lambda m: NOT coalesce(list_contains(
    flatten(list_transform(found, lambda o: json_extract_string(o -> 'modifiers', '$..guid'))), m ->> 'guid'
), false));

-- No unit of what was sold came back with a modifier, so the quantity is 0.
CREATE MACRO modifier_lines(s, factor) AS CASE
    WHEN contains(s.modifiers::VARCHAR, '"refundAmount"') AND NOT has_refund(s."refundDetails") THEN list_transform(
        list_transform(modifiers_alone(modifiers_refunded(s.modifiers)), lambda m: from_json(
            m, '{"guid": "VARCHAR", "item": {"guid": "VARCHAR", "multiLocationId": "VARCHAR"}, "displayName": "VARCHAR",
                "selectionType": "VARCHAR", "deferred": "BOOLEAN", "receiptLinePrice": "DECIMAL(18,4)",
                "preDiscountPrice": "DECIMAL(18,4)", "price": "DECIMAL(18,4)", "tax": "DECIMAL(18,4)",
                "taxInclusion": "VARCHAR", "appliedTaxes": [{"taxAmount": "DECIMAL(18,4)",
                "facilitatorCollectAndRemitTax": "BOOLEAN"}], "refundDetails": {"refundAmount": "DECIMAL(18,4)",
                "taxRefundAmount": "DECIMAL(18,4)", "refundTransaction": {"guid": "VARCHAR"}}}'
        )),
        lambda m: line_of(m, NULL::taxed[], 0, s.guid, factor)
    ) END;

-- `tax` of a selection is not always of whole cents: a check's tax may be rounded once, as its sum. Then what the lines
-- come to is rounded as it adds up, so that they make the check's tax; else each alone. `owed` is what the check's total
-- leaves for it.
CREATE MACRO tax_in_sum(lines, i, factor) AS
    minor(list_sum(list_transform(lines[:i], lambda l: l.exact_tax)), factor);

CREATE MACRO taxes_of(lines, owed, factor) AS CASE
    WHEN added(list_transform(lines, lambda l: minor(l.exact_tax, factor))) <> owed
        AND tax_in_sum(lines, len(lines), factor) = owed
        THEN list_transform(lines, lambda l, i: tax_in_sum(lines, i, factor) - tax_in_sum(lines, i - 1, factor))
    ELSE list_transform(lines, lambda l: minor(l.exact_tax, factor)) END;

-- `receiptLinePrice` has tax in it where the item's tax is included: what it is without is in proportion to the line.
CREATE MACRO unit_price_of(l, tax) AS CASE
    WHEN l.has_tax_in_it AND tax > 0 AND l.price > 0 AND l.receipt > 0 THEN (share_of(
        (l.receipt * 10000)::HUGEINT, l.price::HUGEINT, (l.price + tax)::HUGEINT
    )::DECIMAL(18,0) * 0.0001)::DECIMAL(18,4)
    ELSE l.receipt END;

CREATE MACRO is_revenue(l) AS l.type IN ('item', 'custom_amount', 'service_charge');

-- A line's row of one kind. `counts_on` is the date of what was given back; NULL: the order's own. `remitted` is the tax
-- that a marketplace remits. What is not revenue is in `total` alone, and its tax, which the restaurant owes all the same,
-- has a row of its own.
CREATE MACRO row_of(
    line_id, kind, line_type, product_id, product_name, quantity, unit_price, gross, discount, tax, remitted, total,
    source_line_id, tx, counts_on
) AS struct_pack(
    line_id := line_id, kind := kind, line_type := line_type, product_id := product_id, product_name := product_name,
    quantity := (quantity)::DECIMAL(18,5), unit_price := (unit_price)::DECIMAL(18,4),
    gross := (gross)::BIGINT, discount := (discount)::BIGINT, tax := (tax)::BIGINT, remitted := (remitted)::BIGINT,
    total := (total)::BIGINT, source_line_id := (source_line_id)::VARCHAR, tx := (tx)::VARCHAR,
    counts_on := (counts_on)::DATE
);

CREATE MACRO bare_row(line_id, kind, line_type, product_id, label, net, total, source_line_id, counts_on) AS row_of(
    line_id, kind, line_type, product_id, label, 0, 0, net, 0, 0, 0, total, source_line_id, NULL, counts_on
);

-- Rows of lines whose figures are known: {line, line_id, kind, quantity, amount, discount, tax, remitted, source}.
CREATE MACRO rows_of(known) AS flatten(list_transform(known, lambda k: list_concat(
    [row_of(
        k.line_id, k.kind, k.line.type, k.line.product, k.line.name, k.quantity, k.unit_price,
        CASE WHEN is_revenue(k.line) THEN k.amount + k.discount ELSE 0 END,
        CASE WHEN is_revenue(k.line) THEN k.discount ELSE 0 END,
        CASE WHEN is_revenue(k.line) THEN k.tax - k.remitted ELSE 0 END,
        CASE WHEN is_revenue(k.line) THEN k.remitted ELSE 0 END,
        CASE WHEN is_revenue(k.line) THEN k.amount + k.tax ELSE k.amount END, k.source, k.line.tx, NULL
    )],
    CASE WHEN k.tax <> 0 AND NOT is_revenue(k.line) THEN [row_of(
        k.line_id || ':tax', k.kind, 'service_charge', k.line.product, k.line.name || ' (tax)', 0, 0, 0, 0,
        k.tax - k.remitted, k.remitted, k.tax, k.source, k.line.tx, NULL
    )] ELSE [] END
)));

CREATE MACRO sold_rows(c) AS rows_of(list_transform(c.lines, lambda l, i: struct_pack(
    line := l, line_id := l.id, kind := 'sale', quantity := l.quantity, unit_price := unit_price_of(l, c.taxes[i]),
    amount := l.price, discount := l.listed - l.price, tax := c.taxes[i],
    remitted := remitted_of(c.taxes[i], l.own, l.every), source := NULL::VARCHAR
)));

-- What came back ------------------------------------------------------------------------------------------------------

CREATE MACRO sum_of(refunds) AS added(list_transform(refunds, lambda f: f.amount));

-- What lines say was given back of them, tax included.
CREATE MACRO said_of(lines) AS
    added(list_transform(list_filter(lines, lambda l: l.given), lambda l: l.back + l.tax_back));

-- The refunds of a check's payments. Toast keeps one of each payment, with the sum and the last date.
CREATE MACRO refunds_of(payments, location_id, raw_date, factor) AS list_transform(
    list_filter(payments, lambda p:
        coalesce(p.refund."refundAmount", 0) <> 0 OR coalesce(p.refund."tipRefundAmount", 0) <> 0),
    lambda p: struct_pack(
        day := coalesce(
            try_strptime(p.refund."refundBusinessDate", '%Y%m%d')::DATE,
            business_date_of(location_id, p.refund."refundDate"), raw_date
        ),
        tx := p.refund."refundTransaction".guid,
        amount := minor(p.refund."refundAmount", factor),
        tip := minor(p.refund."tipRefundAmount", factor),
        moment := p.refund."refundDate"
    )
);

-- A quantity in hundred-thousandths, so that its shares are found in whole numbers: a division of decimals would be a DOUBLE.
CREATE MACRO scaled(quantity) AS (quantity * 100000)::HUGEINT;

-- How many units came back for an amount: the whole number of them whose share of the price is that amount, else the
-- part of the quantity that it stands for. Toast tells the amount alone.
CREATE MACRO units_back(quantity, price, back) AS CASE
    WHEN price <= 0 OR quantity <= 0 OR back <= 0 THEN 0::DECIMAL(18,5)
    WHEN abs(price * share_of(quantity, back, price * 100000) * 100000 - back * quantity) < quantity
        THEN share_of(quantity, back, price * 100000)::DECIMAL(18,5)
    ELSE (share_of(quantity, back, price)::DECIMAL(18,0) * 0.00001)::DECIMAL(18,5) END;

-- Lines that came back: {line, tax, back, tax_back}. A refund may be of tax alone: then no unit came back.
CREATE MACRO returned_rows(backs) AS rows_of(list_transform(backs, lambda b: struct_pack(
    line := b.line, line_id := 'return:' || b.line.id, kind := 'return',
    quantity := CASE
        WHEN b.back = 0 AND b.tax_back <> 0 THEN 0
        WHEN b.back >= b.line.price OR b.line.price < 0 THEN -b.line.quantity
        ELSE -units_back(scaled(b.line.quantity), b.line.price::HUGEINT, b.back::HUGEINT) END,
    unit_price := unit_price_of(b.line, b.tax),
    amount := -b.back,
    discount := CASE
        WHEN (b.back = 0 AND b.tax_back <> 0) OR b.line.listed = b.line.price THEN 0::BIGINT
        WHEN b.back >= b.line.price OR b.line.price < 0 THEN b.line.price - b.line.listed
        ELSE signed_share(b.line.price - b.line.listed, abs(b.back), b.line.price) END,
    tax := -b.tax_back,
    remitted := -remitted_of(b.tax_back, b.line.own, b.line.every),
    source := coalesce(b.line.parent, b.line.id)
)));

-- The refund transactions that a check's lines name.
CREATE MACRO named_by(c) AS list_transform(
    list_filter(list_concat(c.sold, c.charged, c.modifiers), lambda l: l.given), lambda l: l.tx
);

-- Whether a refund of a check's payments is of lines of another check of the order: one that both name, and its own do not.
CREATE MACRO is_of_another(f, c, checks) AS coalesce(f.tx <> '' AND NOT list_contains(named_by(c), f.tx)
    AND list_contains(flatten(list_transform(checks, lambda k: named_by(k))), f.tx), false);

-- What is known to have come back of a check. When all that it came to was given back and its lines do not say for what,
-- that is everything (`whole`): a refund of the entire check.
CREATE MACRO things_of(c) AS returned_rows(CASE
    WHEN c.whole THEN list_transform(c.lines, lambda l, i: struct_pack(
        line := l, tax := c.taxes[i], back := l.price, tax_back := c.taxes[i]
    ))
    ELSE list_concat(
        list_filter(list_transform(c.lines, lambda l, i: struct_pack(
            line := l, tax := c.taxes[i], back := l.back, tax_back := l.tax_back
        )), lambda b: b.line.given),
        list_transform(c.modifiers, lambda m: struct_pack(
            line := m, tax := minor(m.exact_tax, c.factor), back := m.back, tax_back := m.tax_back
        ))
    ) END);

-- On which day each thing came back. Nearly always an order has one day of refunds. Else the things of one refund
-- transaction belong to the payments that name it, if those gave back as much; else to a refund of their very amount; what
-- is left is spread over what the refunds have left, in the order of their days: each day gives back what its payments did.
CREATE MACRO groups_of(things) AS list_transform(
    list_distinct(list_transform(things, lambda t: t.tx)),
    lambda x: struct_pack(
        tx := x, total := -added(list_transform(list_filter(things, lambda t: t.tx = x), lambda t: t.total))
    )
);

CREATE MACRO days_of(refunds) AS list_transform(refunds, lambda f: f.day);

CREATE MACRO dated_groups(groups, refunds) AS list_transform(groups, lambda g: struct_pack(tx := g.tx, total := g.total,
    day := coalesce(
        CASE WHEN g.tx <> '' AND sum_of(list_filter(refunds, lambda f: f.tx = g.tx)) >= g.total
            THEN list_max(days_of(list_filter(refunds, lambda f: f.tx = g.tx))) END,
        list_sort(days_of(list_filter(refunds, lambda f: f.amount = g.total)))[list_position(
            list_sort(list_transform(list_filter(groups, lambda h: h.total = g.total), lambda h: h.tx)), g.tx
        )],
        CASE WHEN list_min(days_of(refunds)) = list_max(days_of(refunds)) THEN list_max(days_of(refunds)) END
    )
));

-- What each day gave back beside the groups that belong to it.
CREATE MACRO left_of(days, refunds, groups) AS list_transform(days, lambda d: struct_pack(day := d, amount := greatest(
    0, sum_of(list_filter(refunds, lambda f: f.day = d))
        - added(list_transform(list_filter(groups, lambda g: g.day = d), lambda g: g.total))
)));

-- The same, from where to where in their sum; the last day takes whatever may be beyond.
CREATE MACRO spans_of(left_over) AS list_transform(left_over, lambda u, k: struct_pack(
    day := u.day, since := sum_of(left_over[:k - 1]),
    until := CASE WHEN k = len(left_over) THEN 1000000000000000000 ELSE sum_of(left_over[:k]) END
));

-- Each thing with its day, if it has one, and where it begins among those that have none.
CREATE MACRO with_days(things, groups) AS list_transform(things, lambda t: struct_pack(
    r := t, day := list_filter(groups, lambda g: g.tx = t.tx)[1].day
));

CREATE MACRO with_starts(dayed) AS list_transform(dayed, lambda t, j: struct_pack(
    r := t.r, day := t.day, is_loose := t.day IS NULL AND t.r.total < 0,
    since := -added(list_transform(
        list_filter(dayed[:j - 1], lambda o: o.day IS NULL AND o.r.total < 0), lambda o: o.r.total
    ))
));

-- A part of a row, from one minor unit of its total to another, on a day; the first part keeps the row's id.
CREATE MACRO share_between(number, a, b, total) AS signed_share(number, b, total) - signed_share(number, a, total);

CREATE MACRO part_of(r, a, b, day) AS row_of(
    CASE WHEN a = 0 THEN r.line_id ELSE r.line_id || ':' || day::VARCHAR END,
    r.kind, r.line_type, r.product_id, r.product_name,
    share_between((r.quantity * 100000)::BIGINT, a, b, -r.total) * 0.00001, r.unit_price,
    CASE WHEN r.gross = 0 AND r.discount = 0 AND r.tax = 0 AND r.remitted = 0 THEN 0 ELSE
        a - b - share_between(r.tax, a, b, -r.total) - share_between(r.remitted, a, b, -r.total)
        + share_between(r.discount, a, b, -r.total) END,
    share_between(r.discount, a, b, -r.total), share_between(r.tax, a, b, -r.total),
    share_between(r.remitted, a, b, -r.total), a - b, r.source_line_id, r.tx, day
);

CREATE MACRO on_day(r, day) AS row_of(
    r.line_id, r.kind, r.line_type, r.product_id, r.product_name, r.quantity, r.unit_price, r.gross, r.discount, r.tax,
    r.remitted, r.total, r.source_line_id, r.tx, day
);

CREATE MACRO parts_of(started, spans, last_day) AS flatten(list_transform(started, lambda t: CASE
    WHEN t.is_loose THEN list_transform(
        list_filter(
            list_transform(spans, lambda u: struct_pack(
                day := u.day, a := greatest(u.since - t.since, 0), b := least(u.until - t.since, -t.r.total)
            )),
            lambda u: u.b > u.a
        ),
        lambda u: part_of(t.r, u.a, u.b, u.day)
    )
    ELSE [on_day(t.r, coalesce(t.day, last_day))] END));

CREATE MACRO nth_id(line_id, n, day) AS line_id || CASE WHEN n = 1 THEN '' ELSE ':' || day::VARCHAR END;

-- What each day gave back that no line is named for, and of tips. The first is a custom amount: it lessens net sales alone,
-- no tax, as in Toast's reports.
CREATE MACRO sums_back(days, refunds, named) AS list_transform(days, lambda d: struct_pack(
    day := d,
    amount := -sum_of(list_filter(refunds, lambda f: f.day = d))
        - added(list_transform(list_filter(named, lambda r: r.counts_on = d), lambda r: r.total)),
    tip := -added(list_transform(list_filter(refunds, lambda f: f.day = d), lambda f: f.tip))
));

CREATE MACRO rest_rows(sums) AS list_filter(
    list_concat(
        list_transform(sums, lambda x, n: bare_row(
            nth_id('return:amount', n, x.day), 'return', 'custom_amount', 'name:Refund|', 'Refund', x.amount, x.amount,
            NULL, x.day
        )),
        list_transform(sums, lambda x, n: bare_row(
            nth_id('return:tip', n, x.day), 'return', 'tip', 'tip', 'Tip', 0, x.tip, 'tip', x.day
        ))
    ),
    lambda r: r.total <> 0
);

CREATE MACRO void_rows(selections) AS list_transform(selections, lambda s: bare_row(
    s.guid, 'void', line_type_of(s), coalesce(nullif(s.item."multiLocationId", ''), s.item.guid, 'name:' || name_of(s) || '|'),
    name_of(s), 0, 0, NULL, NULL
));

CREATE MACRO paid_by(payments, types, factor) AS added(list_transform(
    list_filter(payments, lambda p: list_contains(types, p."type")),
    lambda p: minor(p.amount, factor) + minor(p."tipAmount", factor)
));

-- The query -----------------------------------------------------------------------------------------------------------
WITH live AS (
    SELECT
        *,
        coalesce("openedDate", "createdDate") AS opened,
        coalesce(voided, false) OR coalesce(deleted, false)
            OR (len(checks) > 0 AND len(list_filter(checks, lambda c: counts(c))) = 0) AS is_canceled,
        minor_unit(flux_currency) AS factor
    FROM orders
    -- Rung up for practice, or to keep account of waste: never a sale, not even a cancelled one.
    WHERE NOT coalesce("createdInTestMode", false) AND NOT coalesce("excessFood", false)
),

read AS (
    SELECT
        * EXCLUDE (checks),
        CASE WHEN is_canceled THEN flatten(list_transform(checks, lambda c: c.selections)) END AS void_selections,
        CASE WHEN is_canceled OR factor IS NULL THEN [] ELSE list_transform(
            list_filter(checks, lambda c: counts(c)),
            lambda c: struct_pack(
                total := c."totalAmount",
                is_open := coalesce(c."paymentStatus" = 'OPEN', false),
                selections := list_filter(c.selections, lambda s: NOT coalesce(s.voided, false)),
                charges := c."appliedServiceCharges",
                payments := list_filter(c.payments, lambda p: moved(p))
            )
        ) END AS checks
    FROM live
),

valued AS (
    SELECT
        * EXCLUDE (checks),
        list_transform(checks, lambda c: struct_pack(
            total := minor(c.total, factor),
            sold := coalesce(list_transform(c.selections, lambda s: line_of(
                s, taxes_inside(s.modifiers), coalesce(s.quantity, 1), NULL, factor
            )), []),
            modifiers := coalesce(flatten(list_transform(c.selections, lambda s: modifier_lines(s, factor))), []),
            charged := coalesce(list_transform(c.charges, lambda x, i: charge_line(
                x, i::VARCHAR, list_sum(list_transform(x."appliedTaxes", lambda t: t."taxAmount")), factor
            )), []),
            -- A charge that is a gratuity is not in `totalAmount` (developer guide, "Calculating net sales").
            gratuity := added(list_transform(
                list_filter(c.charges, lambda x: x.gratuity), lambda x: minor(x."chargeAmount", factor)
            )),
            -- "OPEN: there is still an amount due on the check" (Check.paymentStatus). Its tip comes with its payment.
            due := CASE WHEN c.is_open THEN minor(c.total, factor)
                + added(list_transform(list_filter(c.charges, lambda x: x.gratuity), lambda x: minor(x."chargeAmount", factor)))
                - added(list_transform(c.payments, lambda p: minor(p.amount, factor))) ELSE 0 END,
            payments := coalesce(c.payments, []),
            refunds := coalesce(refunds_of(c.payments, flux_location_id, raw_date, factor), [])
        )) AS checks
    FROM read
),

taxed AS (
    SELECT
        * EXCLUDE (checks),
        list_transform(checks, lambda c: struct_pack(
            lines := list_concat(c.sold, c.charged),
            taxes := list_concat(
                taxes_of(c.sold, c.total + c.gratuity - added(list_transform(c.sold, lambda l: l.price))
                    - added(list_transform(c.charged, lambda l: l.price + minor(l.exact_tax, factor))), factor),
                list_transform(c.charged, lambda l: minor(l.exact_tax, factor))
            ),
            modifiers := c.modifiers,
            owed := c.total + c.gratuity,
            due := c.due,
            whole := c.total + c.gratuity > 0 AND sum_of(c.refunds) = c.total + c.gratuity
                AND said_of(c.sold) + said_of(c.charged) + said_of(c.modifiers) <> c.total + c.gratuity
                AND len(list_filter(c.refunds, lambda f: is_of_another(f, c, checks))) = 0,
            payments := c.payments,
            refunds := c.refunds,
            factor := factor
        )) AS checks
    FROM valued
),

summed AS (
    SELECT
        *,
        flatten(list_transform(checks, lambda c: c.payments)) AS payments,
        flatten(list_transform(checks, lambda c: c.refunds)) AS refunds,
        added(list_transform(checks, lambda c: c.owed)) AS owed,
        added(list_transform(checks, lambda c: c.due)) AS due,
        list_transform(checks, lambda c: struct_pack(refunds := c.refunds, things := things_of(c))) AS returned
    FROM taxed
),

counted AS (
    SELECT
        *,
        list_sort(list_distinct(days_of(refunds))) AS days,
        added(list_transform(payments, lambda p: minor(p."tipAmount", factor))) AS tip,
        sum_of(refunds) AS back,
        added(list_transform(refunds, lambda f: f.tip)) AS tip_back,
        flatten(list_transform(returned, lambda c: c.things)) AS things
    FROM summed
),

-- From here to `dated` there is something only where an order was refunded on several days.
linked AS (
    SELECT
        * EXCLUDE (returned),
        CASE WHEN len(days) > 1 THEN list_transform(returned, lambda c: struct_pack(
            things := c.things, refunds := CASE WHEN len(c.refunds) > 0 THEN c.refunds ELSE refunds END,
            groups := groups_of(c.things)
        )) ELSE [] END AS returned
    FROM counted
),

grouped AS (
    SELECT
        * EXCLUDE (returned),
        list_transform(returned, lambda c: struct_pack(
            things := c.things, refunds := c.refunds, groups := dated_groups(c.groups, c.refunds)
        )) AS returned
    FROM linked
),

spanned AS (
    SELECT
        * EXCLUDE (returned),
        list_transform(returned, lambda c: struct_pack(
            dayed := with_days(c.things, c.groups), left_over := left_of(days, c.refunds, c.groups)
        )) AS returned
    FROM grouped
),

dated AS (
    SELECT
        * EXCLUDE (returned),
        CASE
            WHEN len(days) > 1 THEN flatten(list_transform(returned, lambda c: parts_of(
                with_starts(c.dayed), spans_of(c.left_over), days[-1]
            )))
            ELSE list_transform(things, lambda t: on_day(t, coalesce(days[1], raw_date)))
        END AS named
    FROM spanned
),

expanded AS (
    SELECT
        *,
        owed + tip - back - tip_back AS provider_total,
        -added(list_transform(things, lambda t: t.total)) AS itemised_back,
        CASE
            WHEN factor IS NULL THEN []
            WHEN is_canceled THEN coalesce(void_rows(void_selections), [])
            ELSE list_concat(
                flatten(list_transform(checks, lambda c: sold_rows(c))),
                CASE WHEN tip <> 0 THEN [bare_row('tip', 'sale', 'tip', 'tip', 'Tip', 0, tip, NULL, NULL)] ELSE [] END,
                named,
                rest_rows(sums_back(days, refunds, named))
            ) END AS order_rows
    FROM dated
),

judged AS (
    SELECT
        *,
        CASE
            WHEN opened IS NULL THEN 'it has neither openedDate nor createdDate'
            WHEN factor IS NULL THEN no_currency(flux_currency)
            WHEN len(list_filter(order_rows, lambda r: r.line_id IS NULL)) > 0 THEN 'one of its selections has no guid'
            WHEN len(order_rows) <> len(list_distinct(list_transform(order_rows, lambda r: r.line_id)))
                THEN 'two of its selections have the same guid'
            WHEN is_canceled THEN NULL
            -- Of a check that is open it may be a deposit, which the next version of the order has lines for.
            WHEN len(order_rows) = 0 AND due = 0 AND added(list_transform(payments, lambda p: minor(p.amount, factor))) <> 0
                THEN 'it has payments, but nothing was sold or given back'
            WHEN itemised_back > back THEN 'its lines were refunded ' || in_words(itemised_back, flux_currency)
                || ', but its payments only ' || in_words(back, flux_currency)
            WHEN added(list_transform(order_rows, lambda r: r.total)) <> provider_total THEN
                'its rows add up to ' || in_words(added(list_transform(order_rows, lambda r: r.total)), flux_currency)
                || ', but its checks, tips and refunds to ' || in_words(provider_total, flux_currency)
        END AS problem
    FROM expanded
),

placed AS (
    SELECT
        flux_location_id, guid, flux_currency, opened, raw_date, problem, due,
        -- A bad order still has to come out: as one row.
        unnest(CASE WHEN problem IS NULL THEN order_rows ELSE [order_rows[1]] END) AS r,
        unnest([true]) AS first_row,
        unnest(CASE
            WHEN problem IS NOT NULL OR is_canceled THEN [NULL]
            ELSE [struct_pack(
                cash := paid_by(payments, ['CASH'], factor),
                card := paid_by(payments, ['CREDIT'], factor),
                gift_card := paid_by(payments, ['GIFTCARD', 'TOAST_SV'], factor),
                every := added(list_transform(payments, lambda p: minor(p.amount, factor) + minor(p."tipAmount", factor)))
            )]
        END) AS paid,  -- the shorter lists are filled with NULL: only the first row has what they hold
        -- What was given back on a day stands on the first row of that day's returns.
        unnest(CASE WHEN problem IS NULL AND len(days) > 0 THEN list_transform(order_rows, lambda r, i: struct_pack(
            moment := list_max(list_transform(list_filter(refunds, lambda f: f.day = r.counts_on), lambda f: f.moment)),
            refund := CASE WHEN list_position(list_transform(order_rows, lambda o: o.counts_on), r.counts_on) = i
                THEN added(list_transform(
                    list_filter(refunds, lambda f: f.day = r.counts_on), lambda f: f.amount + f.tip
                )) END
        )) ELSE [NULL] END) AS given_back
    FROM judged
)

SELECT
    flux_location_id AS location_id,
    guid AS order_id,
    r.line_id AS line_id,
    r.kind AS kind,
    r.line_type AS line_type,
    r.product_id AS product_id,
    r.product_name AS product_name,
    r.quantity AS quantity,
    r.unit_price AS unit_price,
    r.gross AS gross,
    r.discount AS discount,
    r.tax AS tax,
    r.remitted AS marketplace_tax,
    r.total AS total,
    flux_currency AS currency,
    paid.cash AS tendered_cash,
    paid.card AS tendered_card,
    paid.gift_card AS tendered_gift_card,
    paid.every - paid.cash - paid.card - paid.gift_card AS tendered_other,
    -given_back.refund AS tendered_refund,
    due,
    CASE WHEN r.kind = 'return' THEN guid END AS source_order_id,
    r.source_line_id AS source_line_id,
    CASE WHEN r.kind = 'return' THEN coalesce(given_back.moment, opened) ELSE opened END AS occurred_at,
    coalesce(r.counts_on, raw_date) AS business_date,
    raw_date,
    first_row,
    problem
FROM placed
WHERE r IS NOT NULL OR problem IS NOT NULL;
