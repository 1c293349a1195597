-- transactions and payments -> open_items: orders of which something else was owed on a date than was paid on it, and those of
-- which the provider says that something is due, whatever the date has of them.
-- `{scope}` selects the business dates. `looked_at` (connection, business_date, missing) says of which of them payments are
-- known: of the others nothing can be said.
with owed as (
    select connection, max(tenant) as tenant, any_value(location_id) as location_id, business_date, currency, order_id,
        case when count(distinct source_order_id) filter (kind = 'return') = 1
            then min(source_order_id) filter (kind = 'return' and source_order_id <> order_id) end as source_order_id,
        max(raw_date) as raw_date,
        sum(total) as owed,
        sum(tendered_cash + tendered_card + tendered_gift_card + tendered_other + tendered_refund) as tendered,
        max(due) as due,
        bool_and(kind = 'void') as is_void
    from transactions where {scope}
    group by connection, business_date, currency, order_id
),

paid as (
    select connection, max(tenant) as tenant, any_value(location_id) as location_id, business_date, currency,
        coalesce(order_id, 'payment ' || payment_id) as order_id,
        min(raw_date) as raw_date,
        coalesce(sum(amount + tip) filter (status = 'completed'), 0) as paid,
        coalesce(sum(amount + tip) filter (status = 'pending'), 0) as pending,
        bool_and(order_id is null) as without_order
    from payments where {scope}
    group by connection, business_date, currency, coalesce(order_id, 'payment ' || payment_id)
)

select
    connection,
    coalesce(o.tenant, p.tenant) as tenant,
    coalesce(o.location_id, p.location_id) as location_id,
    business_date,
    currency,
    order_id,
    o.source_order_id,
    least(o.raw_date, p.raw_date) as raw_date,
    coalesce(o.owed, 0) as owed,
    coalesce(p.paid, 0) as paid,
    coalesce(p.pending, 0) as pending,
    coalesce(o.tendered, 0) as tendered,
    o.due,
    case
        when o.order_id is null and p.without_order then 'none'
        when o.order_id is null then 'elsewhere'
        when o.is_void then 'cancelled'
        else 'counted'
    end as order_status
from owed o
full join paid p using (connection, business_date, currency, order_id)
join looked_at k using (connection, business_date)
where k.missing = '' and (coalesce(o.owed, 0) <> coalesce(p.paid, 0) or o.due <> 0)
order by business_date, connection, location_id, order_id, currency
