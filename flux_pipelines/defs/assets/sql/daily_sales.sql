-- transactions -> daily_sales. `{scope}` selects the rows of the step: its business dates.
select
    connection,
    max(tenant) as tenant,
    location_id,
    business_date,
    currency,
    count(distinct order_id) filter (kind = 'sale' and source_order_id is null) as orders,
    count(distinct order_id) filter (kind = 'return') as returns,
    count(distinct order_id) filter (kind = 'void') as voids,
    coalesce(sum(quantity) filter (line_type in ('item', 'custom_amount')), 0) as units,
    sum(gross) as gross,
    sum(discount) as discounts,
    sum(net) as net,
    coalesce(sum(net) filter (line_type = 'service_charge'), 0) as service_charges,
    coalesce(sum(net) filter (kind = 'return'), 0) as refunds,
    sum(tax) as tax,
    sum(marketplace_tax) as marketplace_tax,
    coalesce(sum(total) filter (line_type = 'tip'), 0) as tips,
    coalesce(sum(total) filter (line_type = 'gift_card'), 0) as gift_cards,
    coalesce(sum(total) filter (line_type = 'third_party'), 0) as third_party,
    coalesce(sum(total) filter (line_type = 'rounding'), 0) as rounding,
    sum(total) as total,
    sum(tendered_cash) as tendered_cash,
    sum(tendered_card) as tendered_card,
    sum(tendered_gift_card) as tendered_gift_card,
    sum(tendered_other) as tendered_other,
    sum(tendered_refund) as tendered_refund
from transactions
where {scope}
group by connection, location_id, business_date, currency
order by business_date, connection, location_id, currency
