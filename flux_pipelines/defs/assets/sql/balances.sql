-- open_items -> `balances`: what each date adds to and takes from open balances, order by order (a return with what was sold).
--
-- An order's balance is all that was owed less all that was paid until then. Above zero the customer owes it: a receivable.
-- Below zero it is held for a sale that counts later, or to be given back: a deposit. In the end it must be what the provider
-- says is due of the order (`due`, 0 where it says nothing): what is not is unexplained, a gap on the last date.
--   items     every row of open_items of the connections
--   history   (connection, first): since when payments are known. Of an older order what was sold or paid before is not, so
--             that its balance begins with whatever it needs to end as it should: an opening balance
with sources as (
    select connection, order_id, min(source_order_id) as source from items where source_order_id is not null group by all
),

grouped as (
    select i.*, coalesce(s.source, i.order_id) as book
    from items i left join sources s using (connection, order_id)
),

dues as (
    select connection, location_id, currency, book, sum(due) as due
    from (
        select connection, location_id, currency, book, order_id, coalesce(max(due), 0) as due
        from grouped group by all
    )
    group by all
),

books as (
    select g.connection, g.location_id, g.currency, g.book,
        max(g.business_date) as last,
        sum(g.owed) as owed, sum(g.paid) as paid, sum(g.pending) as pending, sum(g.tendered) as tendered,
        bool_or(g.order_status = 'counted') as is_counted,
        bool_or(g.order_status = 'cancelled') as is_cancelled,
        bool_and(g.order_status = 'none') as without_order,
        any_value(d.due) as due,
        coalesce(min(g.raw_date) < any_value(h.first), false) as is_older
    from grouped g
    join dues d using (connection, location_id, currency, book)
    left join history h using (connection)
    group by all
),

closed as (
    select *, case
        when is_older then 0
        else owed - paid - due
    end as unexplained
    from books
),

moves as (
    select connection, location_id, currency, book, business_date, sum(owed - paid) as moved
    from grouped group by all
),

running as (
    select *, sum(moved) over (partition by connection, location_id, currency, book order by business_date) as balance
    from moves
)

select r.connection, r.location_id, r.currency, r.book, r.business_date,
    case when r.business_date = c.last then c.unexplained else 0 end as gap,
    greatest(r.balance - gap, 0) - greatest(r.balance - r.moved, 0) as receivables,
    greatest(gap - r.balance, 0) - greatest(r.moved - r.balance, 0) as deposits,
    c.owed, c.paid, c.pending, c.tendered, c.is_counted, c.is_cancelled, c.without_order
from running r join closed c using (connection, location_id, currency, book)
