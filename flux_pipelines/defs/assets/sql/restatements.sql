-- What changed since a business date was settled: `now_settled` beside `before_settled` (both of the contract
-- settled_orders), and `known` (what has been restated already) -> rows of restatements that are new.
with stores as (
    select connection, tenant, location_id, business_date, settled_at
    from now_settled
    semi join (select connection, location_id, business_date from before_settled where order_id = '') b
        using (connection, location_id, business_date)
    where order_id = ''
),

orders as (
    select
        coalesce(n.connection, b.connection) as connection,
        coalesce(n.location_id, b.location_id) as location_id,
        coalesce(n.business_date, b.business_date) as business_date,
        coalesce(n.currency, b.currency) as currency,
        coalesce(n.order_id, b.order_id) as order_id,
        n.order_id is not null as is_there, b.order_id is not null as was_there,
        coalesce(n.net, 0) - coalesce(b.net, 0) as net,
        coalesce(n.tax, 0) - coalesce(b.tax, 0) as tax,
        coalesce(n.marketplace_tax, 0) - coalesce(b.marketplace_tax, 0) as marketplace_tax,
        coalesce(n.tips, 0) - coalesce(b.tips, 0) as tips,
        coalesce(n.gift_cards, 0) - coalesce(b.gift_cards, 0) as gift_cards,
        coalesce(n.third_party, 0) - coalesce(b.third_party, 0) as third_party,
        coalesce(n.rounding, 0) - coalesce(b.rounding, 0) as rounding,
        coalesce(n.total, 0) - coalesce(b.total, 0) as total,
        coalesce(n.returned, 0) - coalesce(b.returned, 0) as returned
    from (select * from now_settled where order_id <> '') n
    full join (select * from before_settled where order_id <> '') b
        using (connection, location_id, business_date, order_id, currency)
),

changed as (
    select o.*, s.tenant, s.settled_at,
        case
            when not was_there then 'came late'
            when not is_there then 'voided or taken out'
            when returned < 0 then 'refunded'
            when returned > 0 then 'a refund was taken back'
            else 'edited'
        end as why
    from orders o join stores s using (connection, location_id, business_date)
    where (net, tax, marketplace_tax, tips, gift_cards, third_party, rounding, total) <> (0, 0, 0, 0, 0, 0, 0, 0)
),

reasons as (
    select connection, location_id, business_date, currency, any_value(tenant) as tenant, max(settled_at) as restated_at,
        count(*) as n,
        array_to_string(
            (list(why || ': ' || order_id || ' ' || total order by abs(total) desc, order_id))[1:50], '; '
        ) || case when count(*) > 50 then '; and ' || (count(*) - 50) || ' more' else '' end as reason
    from changed group by 1, 2, 3, 4
),

figures as (
    unpivot (
        select connection, location_id, business_date, currency, sum(net) as net, sum(tax) as tax,
            sum(marketplace_tax) as marketplace_tax, sum(tips) as tips, sum(gift_cards) as gift_cards,
            sum(third_party) as third_party, sum(rounding) as rounding, sum(total) as total
        from changed group by 1, 2, 3, 4
    ) on net, tax, marketplace_tax, tips, gift_cards, third_party, rounding, total into name figure value difference
),

afterwards as (
    unpivot (
        select connection, location_id, business_date, currency, sum(net) as net, sum(tax) as tax,
            sum(marketplace_tax) as marketplace_tax, sum(tips) as tips, sum(gift_cards) as gift_cards,
            sum(third_party) as third_party, sum(rounding) as rounding, sum(total) as total
        from now_settled where order_id <> '' group by 1, 2, 3, 4
    ) on net, tax, marketplace_tax, tips, gift_cards, third_party, rounding, total into name figure value amount
)

select
    f.connection, r.tenant, f.location_id, f.business_date, f.currency, f.figure,
    coalesce(a.amount, 0) - f.difference as amount_before,
    coalesce(a.amount, 0) as amount_after,
    r.reason,
    r.restated_at
from figures f
join reasons r using (connection, location_id, business_date, currency)
left join afterwards a using (connection, location_id, business_date, currency, figure)
where f.difference <> 0
