-- transactions -> settled_orders: what each order of a business date comes to. `{scope}` selects the business dates.
-- `settled` (connection, tenant, location_id, business_date, settled_at) says which stores' dates are settled, and when
-- their orders were fetched.
select
    t.connection, max(t.tenant) as tenant, t.location_id, t.business_date, t.order_id, t.currency,
    sum(t.net) as net,
    sum(t.tax) as tax,
    sum(t.marketplace_tax) as marketplace_tax,
    coalesce(sum(t.total) filter (t.line_type = 'tip'), 0) as tips,
    coalesce(sum(t.total) filter (t.line_type = 'gift_card'), 0) as gift_cards,
    coalesce(sum(t.total) filter (t.line_type = 'third_party'), 0) as third_party,
    coalesce(sum(t.total) filter (t.line_type = 'rounding'), 0) as rounding,
    sum(t.total) as total,
    coalesce(sum(t.total) filter (t.kind = 'return'), 0) as returned,
    max(s.settled_at) as settled_at
from transactions t
join settled s
    on s.connection = t.connection and s.location_id = t.location_id and s.business_date = t.business_date
where {scope} and t.kind in ('sale', 'return')
group by t.connection, t.location_id, t.business_date, t.order_id, t.currency
union all by name
select connection, tenant, location_id, business_date, '' as order_id, '' as currency, 0 as net, 0 as tax,
    0 as marketplace_tax, 0 as tips, 0 as gift_cards, 0 as third_party, 0 as rounding, 0 as total, 0 as returned, settled_at
from settled
