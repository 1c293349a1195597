-- transactions and payments -> tie_out. `{scope}` selects the business dates of the step, `{around}` those and a few
-- before and after them.
--
-- A payment counts on the business date of its order: a tab that is opened before midnight may be paid after it.
-- An order and what was given back of it are compared as one (`book`): where a return is an order of its own, it and its
-- refund count with the order that was sold. A gap that is left in a book is what explains the day's.
-- `looked_at` (connection, business_date, missing) says of which days payments have been fetched, and what is missing
-- until they are known; `fetched_orders` (connection, business_date) of which days orders have been.
with owed_rows as (
    select connection, tenant, location_id, business_date, currency, order_id, source_order_id, kind, line_type, net, tax,
        marketplace_tax, total, tendered_cash + tendered_card + tendered_gift_card + tendered_other + tendered_refund as tendered
    from transactions
    where {scope} and kind <> 'void'
),

sources as (
    select connection, order_id, min(source_order_id) as source
    from owed_rows where kind = 'return' and source_order_id is not null and source_order_id <> order_id
    group by connection, order_id having count(distinct source_order_id) = 1
),

dates as (
    select connection, order_id, any_value(location_id) as location_id, min(business_date) as business_date,
        bool_and(kind = 'void') as is_void
    from transactions where {around} group by connection, order_id
),

dated as (
    select p.* replace (
            coalesce(d.business_date, p.business_date) as business_date, coalesce(d.location_id, p.location_id) as location_id
        ),
        d.order_id is not null as order_found, d.is_void
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
        sum(o.marketplace_tax) as marketplace_tax,
        coalesce(sum(o.total) filter (o.line_type = 'tip'), 0) as tips,
        coalesce(sum(o.total) filter (o.line_type = 'gift_card'), 0) as gift_cards,
        coalesce(sum(o.total) filter (o.line_type = 'third_party'), 0) as third_party,
        coalesce(sum(o.total) filter (o.line_type = 'rounding'), 0) as rounding,
        sum(o.total) as owed,
        sum(o.tendered) as tendered
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
        coalesce(sum(amount + tip) filter (status = 'pending'), 0) as pending,
        bool_and(order_id is null) as without_order,
        bool_or(order_found) as order_found, bool_and(is_void) as is_void
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
        coalesce(net, 0) as net, coalesce(tax, 0) as tax, coalesce(marketplace_tax, 0) as marketplace_tax,
        coalesce(tips, 0) as tips, coalesce(gift_cards, 0) as gift_cards, coalesce(third_party, 0) as third_party,
        coalesce(rounding, 0) as rounding, coalesce(owed, 0) as owed,
        coalesce(paid, 0) as paid, coalesce(refunded, 0) as refunded, coalesce(tips_paid, 0) as tips_paid,
        coalesce(fees, 0) as fees, coalesce(pending, 0) as pending,
        coalesce(owed, 0) - coalesce(paid, 0) - coalesce(refunded, 0) as gap,
        o.book is not null as is_owed, p.book is not null as is_paid, coalesce(tendered, 0) as tendered,
        without_order, order_found, is_void
    from owed o
    full join paid p
        on p.connection = o.connection and p.location_id = o.location_id and p.business_date = o.business_date
        and p.currency = o.currency and p.book = o.book
),

-- Why a book does not close, as far as orders and payments say it themselves. `tendered` is what the order says was paid.
judged as (
    select *, case
        when not is_owed and without_order then 'payment without an order'
        when not is_owed and is_void then 'paid, but the order was cancelled'
        when not is_owed and order_found then 'amounts differ'
        when not is_owed and (
            select count(*) from fetched_orders f where f.connection = books.connection
                and f.business_date between books.business_date - {reach} and books.business_date - 1
        ) < {reach}
            then 'paid for an order of a date that was not fetched'
        when not is_owed then 'paid for an order that is not there'
        when pending = gap then 'payment pending'
        when not is_paid and tendered = 0 then 'not paid'
        when tendered = paid + refunded then 'changed after its payment'
        when tendered = owed then 'changed since its payments were fetched'
        else 'amounts differ'
    end as reason
    from books
    where gap <> 0
),

reasons as (
    select connection, location_id, business_date, currency,
        string_agg(
            reason || ' ' || amount || ' (' || n || case n when 1 then ' order)' else ' orders)' end, '; '
            order by abs(gap) desc, reason
        ) as gap_reason
    from (
        select connection, location_id, business_date, currency, reason, count(*) as n, sum(gap) as gap,
            rtrim(rtrim(sum(gap)::varchar, '0'), '.') as amount
        from judged group by 1, 2, 3, 4, 5
    )
    group by 1, 2, 3, 4
),

days as (
    select
        connection,
        max(tenant) as tenant,
        location_id,
        business_date,
        currency,
        sum(net) as net,
        sum(tax) as tax,
        sum(marketplace_tax) as marketplace_tax,
        sum(tips) as tips,
        sum(gift_cards) as gift_cards,
        sum(third_party) as third_party,
        sum(rounding) as rounding,
        sum(owed) as owed,
        sum(paid) as paid,
        sum(refunded) as refunded,
        sum(tips_paid) as tips_paid,
        sum(fees) as fees,
        sum(pending) as pending,
        sum(gap) as gap,
        array_to_string((list(book || ' ' || gap order by abs(gap) desc, book) filter (gap <> 0))[1:10], ', ')
            || case when count(*) filter (gap <> 0) > 10 then ' and ' || (count(*) filter (gap <> 0) - 10) || ' more' else '' end
            as gap_orders
    from books
    group by connection, location_id, business_date, currency
)

select
    d.* replace (
        case when k.missing = '' then gap end as gap,
        case when k.missing = '' then gap_orders end as gap_orders
    ),
    case when k.missing = '' then gap_reason else coalesce(k.missing, 'payments not fetched') end as gap_reason,
    coalesce(k.missing = '', false) as payments_known
from days d
left join reasons using (connection, location_id, business_date, currency)
left join looked_at k on k.connection = d.connection and k.business_date = d.business_date
order by d.business_date, d.connection, d.location_id, d.currency
