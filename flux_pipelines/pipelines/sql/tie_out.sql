-- transactions and payments -> tie_out. `{scope}` selects the business dates of the step, `{around}` those and a few
-- before and after them.
--
-- A payment counts on the business date of its order: a tab that is opened before midnight may be paid after it.
-- An order and what was given back of it are compared as one (`book`): where a return is an order of its own, it and its
-- refund count with the order that was sold. A gap that is left in a book is what explains the day's.
-- `known_payments` (connection, business_date) says of which days payments have been fetched at all.
with owed_rows as (
    select connection, tenant, location_id, business_date, currency, order_id, source_order_id, kind, line_type, net, tax,
        total
    from transactions
    where {scope} and kind <> 'void'
),

sources as (
    select connection, order_id, min(source_order_id) as source
    from owed_rows where kind = 'return' and source_order_id is not null and source_order_id <> order_id
    group by connection, order_id having count(distinct source_order_id) = 1
),

dates as (
    select connection, order_id, any_value(location_id) as location_id, min(business_date) as business_date
    from transactions where {around} group by connection, order_id
),

dated as (
    select p.* replace (
            coalesce(d.business_date, p.business_date) as business_date, coalesce(d.location_id, p.location_id) as location_id
        )
    from payments p left join dates d on d.connection = p.connection and d.order_id = p.order_id
    where p.{around}
),

paid_rows as (
    select p.*, coalesce(s.source, p.order_id, 'payment ' || p.payment_id) as book
    from dated p left join sources s on s.connection = p.connection and s.order_id = p.order_id
    where {scope}
),

owed as (
    select o.connection, o.location_id, o.business_date, o.currency, coalesce(s.source, o.order_id) as book,
        max(o.tenant) as tenant,
        sum(o.net) as net,
        sum(o.tax) as tax,
        coalesce(sum(o.total) filter (o.line_type = 'tip'), 0) as tips,
        coalesce(sum(o.total) filter (o.line_type = 'gift_card'), 0) as gift_cards,
        coalesce(sum(o.total) filter (o.line_type = 'rounding'), 0) as rounding,
        sum(o.total) as owed
    from owed_rows o left join sources s on s.connection = o.connection and s.order_id = o.order_id
    group by 1, 2, 3, 4, 5
),

paid as (
    select connection, location_id, business_date, currency, book,
        max(tenant) as tenant,
        coalesce(sum(amount + tip) filter (status = 'completed' and kind = 'payment'), 0) as paid,
        coalesce(sum(amount + tip) filter (status = 'completed' and kind = 'refund'), 0) as refunded,
        coalesce(sum(tip) filter (status = 'completed'), 0) as tips_paid,
        coalesce(sum(fee) filter (status = 'completed'), 0) as fees,
        coalesce(sum(amount + tip) filter (status = 'pending'), 0) as pending
    from paid_rows
    group by 1, 2, 3, 4, 5
),

books as (
    select
        coalesce(o.connection, p.connection) as connection,
        coalesce(o.tenant, p.tenant) as tenant,
        coalesce(o.location_id, p.location_id) as location_id,
        coalesce(o.business_date, p.business_date) as business_date,
        coalesce(o.currency, p.currency) as currency,
        coalesce(o.book, p.book) as book,
        coalesce(net, 0) as net, coalesce(tax, 0) as tax, coalesce(tips, 0) as tips,
        coalesce(gift_cards, 0) as gift_cards, coalesce(rounding, 0) as rounding, coalesce(owed, 0) as owed,
        coalesce(paid, 0) as paid, coalesce(refunded, 0) as refunded, coalesce(tips_paid, 0) as tips_paid,
        coalesce(fees, 0) as fees, coalesce(pending, 0) as pending,
        coalesce(owed, 0) - coalesce(paid, 0) - coalesce(refunded, 0) as gap
    from owed o
    full join paid p
        on p.connection = o.connection and p.location_id = o.location_id and p.business_date = o.business_date
        and p.currency = o.currency and p.book = o.book
)

select
    b.connection,
    max(b.tenant) as tenant,
    b.location_id,
    b.business_date,
    b.currency,
    sum(net) as net,
    sum(tax) as tax,
    sum(tips) as tips,
    sum(gift_cards) as gift_cards,
    sum(rounding) as rounding,
    sum(owed) as owed,
    sum(paid) as paid,
    sum(refunded) as refunded,
    sum(tips_paid) as tips_paid,
    sum(fees) as fees,
    sum(pending) as pending,
    sum(gap) as gap,
    array_to_string((list(book || ' ' || gap order by abs(gap) desc, book) filter (gap <> 0))[1:50], ', ')
        || case when count(*) filter (gap <> 0) > 50 then ', and ' || (count(*) filter (gap <> 0) - 50) || ' more' else '' end
        as gap_orders,
    bool_or(k.connection is not null) as payments_known
from books b
left join known_payments k on k.connection = b.connection and k.business_date = b.business_date
group by b.connection, b.location_id, b.business_date, b.currency
order by b.business_date, b.connection, b.location_id, b.currency
