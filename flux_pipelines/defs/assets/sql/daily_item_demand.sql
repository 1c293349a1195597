-- transactions -> daily_item_demand. Names are those of the day's latest sale; ties go to the greatest order and line,
-- so that the same rows always give the same names. `{scope}` selects the rows of the step.
select
    connection,
    max(tenant) as tenant,
    location_id,
    business_date,
    product_id,
    arg_max(product_name, (occurred_at, order_id, line_id)) as product_name,
    arg_max({'v': variation}, (occurred_at, order_id, line_id)).v as variation,
    arg_max({'v': category}, (occurred_at, order_id, line_id)).v as category,
    currency,
    sum(quantity) as quantity,
    sum(net) as net
from transactions
where {scope}
    and line_type in ('item', 'custom_amount')
    and kind in ('sale', 'return')
group by connection, location_id, business_date, product_id, currency
order by business_date, connection, location_id, product_id, currency
