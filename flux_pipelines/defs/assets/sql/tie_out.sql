-- transactions, payments and `balances` (balances.sql) -> tie_out. `{scope}` selects the business dates of the step, `{around}`
-- those and a few before and after them. `looked_at` (connection, business_date, missing) says of which days payments have been
-- fetched, and what is missing until they are known; `fetched_orders` (connection, business_date) of which days orders have been.
with places as (
    select connection, order_id, business_date, any_value(location_id) as location_id
    from transactions where {scope} group by all
),

owed as (
    select connection, location_id, business_date, currency,
        max(tenant) as tenant,
        sum(net) as net,
        sum(tax) as tax,
        sum(marketplace_tax) as marketplace_tax,
        coalesce(sum(total) filter (line_type = 'tip'), 0) as tips,
        coalesce(sum(total) filter (line_type = 'gift_card'), 0) as gift_cards,
        coalesce(sum(total) filter (line_type = 'third_party'), 0) as third_party,
        coalesce(sum(total) filter (line_type = 'rounding'), 0) as rounding,
        sum(total) as owed
    from transactions where {scope} and kind in ('sale', 'return')
    group by connection, location_id, business_date, currency
),

paid as (
    select p.connection, coalesce(o.location_id, p.location_id) as location_id, p.business_date, p.currency,
        max(p.tenant) as tenant,
        coalesce(sum(amount + tip) filter (status = 'completed' and kind = 'payment'), 0) as paid,
        coalesce(sum(amount + tip) filter (status = 'completed' and kind = 'refund'), 0) as refunded,
        coalesce(sum(tip) filter (status = 'completed'), 0) as tips_paid,
        coalesce(sum(fee) filter (status = 'completed'), 0) as fees,
        coalesce(sum(amount + tip) filter (status = 'pending'), 0) as pending
    from payments p
    left join places o using (connection, order_id, business_date)
    where {scope}
    group by 1, 2, 3, 4
),

-- Where the order of a payment is that no row of its own date tells of.
elsewhere as (
    select connection, order_id, bool_and(kind = 'void') as is_void from transactions where {around} group by all
),

-- Why an order does not close, as far as orders and payments say it themselves. `tendered` is what the order says was paid.
judged as (
    select b.*, case
        when b.without_order then 'payment without an order'
        when b.is_cancelled or (not b.is_counted and e.is_void) then 'paid, but the order was cancelled'
        when not b.is_counted and e.order_id is not null then 'amounts differ'
        when not b.is_counted and (
            select count(*) from fetched_orders f where f.connection = b.connection
                and f.business_date between b.business_date - {reach} and b.business_date
        ) <= {reach}
            then 'paid for an order of a date that was not fetched'
        when not b.is_counted then 'paid for an order that is not there'
        when b.pending = b.gap then 'payment pending'
        when b.paid = 0 and b.tendered = 0 then 'not paid'
        when b.tendered = b.paid then 'changed after its payment'
        when b.tendered = b.owed then 'changed since its payments were fetched'
        else 'amounts differ'
    end as reason
    from (select * from balances where {scope}) b
    left join elsewhere e on e.connection = b.connection and e.order_id = b.book
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
        from judged where gap <> 0 group by 1, 2, 3, 4, 5
    )
    group by 1, 2, 3, 4
),

moved as (
    select connection, location_id, business_date, currency,
        sum(receivables) as receivables, sum(deposits) as deposits, sum(gap) as gap,
        array_to_string((list(book || ' ' || gap order by abs(gap) desc, book) filter (gap <> 0))[1:10], ', ')
            || case when count(*) filter (gap <> 0) > 10 then ' and ' || (count(*) filter (gap <> 0) - 10) || ' more' else '' end
            as gap_orders
    from judged group by 1, 2, 3, 4
)

select
    connection, coalesce(o.tenant, p.tenant) as tenant, location_id, business_date, currency,
    coalesce(net, 0) as net, coalesce(tax, 0) as tax, coalesce(marketplace_tax, 0) as marketplace_tax,
    coalesce(tips, 0) as tips, coalesce(gift_cards, 0) as gift_cards, coalesce(third_party, 0) as third_party,
    coalesce(rounding, 0) as rounding, coalesce(owed, 0) as owed,
    coalesce(paid, 0) as paid, coalesce(refunded, 0) as refunded, coalesce(tips_paid, 0) as tips_paid,
    coalesce(fees, 0) as fees, coalesce(pending, 0) as pending,
    case when k.missing = '' then coalesce(m.receivables, 0) end as receivables,
    case when k.missing = '' then coalesce(m.deposits, 0) end as deposits,
    case when k.missing = '' then coalesce(m.gap, 0) end as gap,
    -- Orders whose gaps are of one amount and cancel each other out are one payment that was moved: the day is whole.
    case when k.missing = '' and m.gap <> 0 then m.gap_orders end as gap_orders,
    case
        when k.missing is null then 'payments not fetched'
        when k.missing <> '' then k.missing
        when m.gap <> 0 then r.gap_reason
    end as gap_reason,
    coalesce(k.missing = '', false) as payments_known
from owed o
full join paid p using (connection, location_id, business_date, currency)
left join moved m using (connection, location_id, business_date, currency)
left join reasons r using (connection, location_id, business_date, currency)
left join looked_at k using (connection, business_date)
order by business_date, connection, location_id, currency
