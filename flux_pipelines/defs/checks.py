"""Blocking checks as SQL over what is about to be written. Each finds offenders; none found means passed.

A check's query selects `partition`, `subject` and `problem` of every offender from the table's view. Checks belong to
the asset that writes the table and are evaluated by its step before its rows are committed: what a blocking check has found
wrong never gets into the table, which keeps what it had (`publishing`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import dagster as dg

from flux_pipelines.defs.metadata import preview
from flux_pipelines.defs.partitions import ranges
from flux_pipelines.domain.partition import Unit, unit_of
from flux_pipelines.domain.tables import Table
from flux_pipelines.domain.tables.sales import NOT_REVENUE

if TYPE_CHECKING:
    import duckdb

#: What DuckDB may hold while it checks; beyond that it uses temporary files.
CHECK_MEMORY = "256MB"
#: At most this many rows (about 40 MB) are held in memory to be read several times.
_HELD_ROWS = 100_000
#: Offenders shown in the UI; their number is always told in full.
SAMPLE = 20


@dataclass(frozen=True, slots=True)
class Check:
    """A rule about a table.

    Args:
        name: as shown in the UI.
        description: what holds when it passes, and what to do when it does not.
        sql: selects the offenders; `{view}` is the table, `{scope}` selects the rows of the step.
        reads: the tables it reads besides its own, as the lake names them.
        suspects: selects a number that is 0 when there cannot be an offender; cheaper than `sql`, which is then not run.
        blocking: whether what comes after must wait for it.

    """

    name: str
    description: str
    sql: str
    reads: tuple[str, ...] = ()
    suspects: str = ""
    blocking: bool = True

    def spec(self, asset: dg.AssetKey) -> dg.AssetCheckSpec:
        """Return the declaration for Dagster."""
        return dg.AssetCheckSpec(self.name, asset=asset, description=self.description, blocking=self.blocking)


class Rows(Protocol):
    """Which rows of a table are meant."""

    def where(self, day: str) -> str:
        """Return the SQL condition that selects them; `day` is the column of the business date."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The rows that a step has written: business dates, and connections unless it is all of them."""

    days: Sequence[date]
    connections: tuple[str, ...] | None = None

    def where(self, day: str) -> str:
        """Return the SQL condition that selects the scope. Literals, so that DuckDB prunes partitions by it."""
        runs = [f"{day} between date '{first}' and date '{last}'" for first, last in ranges(self.days)]
        condition = f"({' or '.join(runs)})" if runs else "false"
        if self.connections is not None:
            condition += f" and {Everything(self.connections).where(day)}"
        return condition

    def around(self, before: int, after: int = 0) -> Scope:
        """Return the scope with so many days more before and after each of its dates."""
        near = {day + timedelta(days=n) for day in self.days for n in range(-before, after + 1)}
        return Scope(sorted(near), self.connections)


@dataclass(frozen=True, slots=True)
class Everything:
    """The rows that a step has written to a table without business dates."""

    connections: tuple[str, ...] | None = None

    def where(self, day: str) -> str:  # noqa: ARG002 - there is none
        """Return the SQL condition that selects the rows."""
        return "true" if self.connections is None else f"connection in ({', '.join(map(quoted, self.connections))})"


def view_of(table: str) -> str:
    """Return the name that a table of the lake has in SQL: `square_transactions` of `square/transactions`."""
    return table.replace("/", "_")


def quoted(text: str) -> str:
    """Write a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def hold(database: duckdb.DuckDBPyConnection, view: str, condition: str, rows: int) -> None:
    """Read the rows of a view once and keep them, if they are few: each check and figure would else open every file.

    Args:
        database: a session over the lake.
        view: the table's name in SQL.
        condition: which rows are needed.
        rows: how many there are.

    """
    if rows <= _HELD_ROWS:
        held = database.sql(f"select * from {view} where {condition}").to_arrow_table()
        database.unregister(view)  # one over Arrow
        database.execute(f"drop view if exists {view}")  # one over files
        database.register(view, held)


class Findings:
    """What some checks find of an asset, over one look at its rows or several.

    Args:
        checks: the rules; those without SQL are for the asset to `add` to.
        asset: whose they are.

    """

    def __init__(self, checks: Sequence[Check], asset: dg.AssetKey) -> None:
        self._checks = checks
        self._asset = asset
        self._offenders: dict[str, int] = {}
        self._samples: dict[str, list[Sequence[object]]] = {}
        self._told: list[dg.AssetCheckResult] = []
        #: What blocking checks have found wrong: each unit with the reason.
        self.refused: dict[Unit, str] = {}

    def look(
        self, database: duckdb.DuckDBPyConnection, view: str, day: str, scope: Rows, *, but: str = "false"
    ) -> None:
        """Evaluate the checks over some rows.

        Args:
            database: a session over the lake.
            view: the table's name in SQL.
            day: the column of the business date.
            scope: which rows.
            but: SQL condition of rows among them that are left out.

        """
        source = f"(select * from {view} where {scope.where(day)} and not ({but}))"
        for check in self._checks:
            if not check.sql:
                continue
            if check.suspects and database.execute(check.suspects.replace("{view}", source)).fetchall() == [(0,)]:
                continue
            offenders = check.sql.replace("{view}", source).replace("{scope}", scope.where(day))
            found = database.execute(
                f"select count(*) over () as n, partition, subject, problem from ({offenders}) limit {SAMPLE}"
            ).fetchall()
            if not found:
                continue
            units = database.execute(
                f"select partition, count(*), min_by(subject || ': ' || problem, subject) from ({offenders}) group by 1"
            ).fetchall()
            self.add(
                check, found[0][0], [row[1:] for row in found], {unit_of(unit): (n, first) for unit, n, first in units}
            )

    def add(
        self,
        check: Check,
        count: int,
        sample: Sequence[Sequence[object]],
        units: Mapping[Unit, tuple[int, str]],
    ) -> None:
        """Add offenders of a check.

        Args:
            check: which rule.
            count: how many there are.
            sample: unit, subject and problem of some.
            units: how many each unit has, and the first of them in words.

        """
        self._offenders[check.name] = self._offenders.get(check.name, 0) + count
        self._samples.setdefault(check.name, []).extend(sample)
        if check.blocking:
            for unit, (n, first) in units.items():
                found = f"{n} offender{'' if n == 1 else 's'}, {'' if n == 1 else 'among them '}{first}"
                self.refused.setdefault(unit, f"the check {check.name} found {found}")

    def tell(self, result: dg.AssetCheckResult) -> None:
        """Add the result of a check that is none of these."""
        self._told.append(result)

    def merged(self, other: Findings) -> Findings:
        """Return what these and others have found, of the same checks."""
        both = Findings(self._checks, self._asset)
        for one in (self, other):
            for name, number in one._offenders.items():
                both._offenders[name] = both._offenders.get(name, 0) + number
            for name, sample in one._samples.items():
                both._samples.setdefault(name, []).extend(sample)
            both.refused |= one.refused
            both._told += one._told
        return both

    def results(self) -> list[dg.AssetCheckResult]:
        """Return each check's result."""
        return [
            result(check, self._asset, self._offenders.get(check.name, 0), self._samples.get(check.name, [])[:SAMPLE])
            for check in self._checks
        ] + self._told


def result(
    check: Check,
    asset: dg.AssetKey,
    count: int,
    sample: Sequence[Sequence[object]],
    more: Mapping[str, Any] | None = None,
) -> dg.AssetCheckResult:
    """Return a check's result: passed when nothing offends it; else how much does, and a sample."""
    metadata: dict[str, Any] = {"offenders": count, **(more or {})}
    if sample:
        metadata["sample"] = preview(("partition", "what", "problem"), sample)
    return dg.AssetCheckResult(
        passed=count == 0,
        check_name=check.name,
        asset_key=asset,
        severity=dg.AssetCheckSeverity.ERROR if check.blocking else dg.AssetCheckSeverity.WARN,
        metadata=metadata,
    )


def no_duplicate_lines(table: Table) -> Check:
    """Return the rule that the table's key is unique."""
    key = ", ".join(table.key)
    where = unit_label(table)
    return Check(
        "no_duplicate_lines",
        f"No two rows have the same {key}. If it fails: run the partition again; if it stays, report it.",
        f"""
        select any_value({where}) as partition, concat_ws(' / ', {key}) as subject, count(*) || ' rows' as problem
        from {{view}} group by {key} having count(*) > 1
        """,
        # Eight bytes a row instead of its key: a day of a million orders fits into little memory.
        suspects=f"select count(*) from (select hash({key}) as h from {{view}} group by h having count(*) > 1)",
    )


def contract(table: Table, rules: Mapping[str, str], *, large: bool = False) -> Check:
    """Return the rule that values are there, allowed, and agree with each other.

    Args:
        table: the contract.
        rules: what else must hold: a sentence, and the SQL condition.
        large: read only the columns that rules are about. That required values are there, the lake has enforced when
            the rows were written; reading every column of a million orders again costs more than writing them.

    """
    conditions = {f"{c.name} is missing": f"{c.name} is null" for c in table if c.required and not large}
    for column in table:
        if column.allowed:
            values = ", ".join(map(quoted, column.allowed))
            conditions[f"{column.name} is none of {', '.join(column.allowed)}"] = f"{column.name} not in ({values})"
    conditions |= {f"not so: {sentence}": f"not coalesce({condition}, true)" for sentence, condition in rules.items()}
    cases = "\n".join(f"when {condition} then {quoted(problem)}" for problem, condition in conditions.items())
    key = ", ".join(table.key)
    return Check(
        "contract",
        "Every required value is there, every value is one of those allowed, and amounts agree with each other.",
        f"""
        select {unit_label(table)} as partition, concat_ws(' / ', {key}) as subject, case {cases} end as problem
        from {{view}} where {" or ".join(conditions.values())}
        """,
    )


def of_units(table: Table, units: Iterable[Unit]) -> str:
    """Return the SQL condition that selects the rows of some units of a table."""
    names = ", ".join(map(quoted, sorted(map(str, units))))
    return f"{unit_label(table)} in ({names})" if names else "false"


def unit_label(table: Table) -> str:
    """Return the SQL of what a row's unit is called: `square:acme|2026-03-09`."""
    return f"concat_ws('|', {', '.join(table.unit)})"


TRANSACTION_RULES = {
    "net = gross - discount": "net = gross - discount",
    "total = net + tax + marketplace_tax for revenue": (
        f"line_type in {NOT_REVENUE} or total = net + tax + marketplace_tax"
    ),
    "what is not revenue is in total alone": (
        f"line_type not in {NOT_REVENUE} or (gross = 0 and discount = 0 and net = 0 and tax = 0 and marketplace_tax = 0)"
    ),
    "a void and an open order have zero amounts": (
        "kind in ('sale', 'return') or (gross = 0 and discount = 0 and tax = 0 and marketplace_tax = 0 and total = 0)"
    ),
    # What was kept of a refund (a fee for restocking or cancelling) is revenue that belongs to no goods. A line that was sold for
    # less than nothing, a coupon, takes nothing away when it comes back.
    "a return has no positive amounts, unless something was kept that is no goods or sold for less than nothing": (
        "kind <> 'return' or line_type = 'rounding' or (quantity <= 0 and (gross <= 0 or unit_price < 0)) "
        "or (quantity = 0 and line_type in ('custom_amount', 'service_charge'))"
    ),
}

#: What must hold of the tables that are made of streams, beside what is allowed: a sentence, and the SQL condition.
TABLE_RULES: Mapping[str, Mapping[str, str]] = {
    "payments": {
        "a payment is not negative": "kind <> 'payment' or (amount >= 0 and tip >= 0)",
        "a refund is not positive": "kind <> 'refund' or (amount <= 0 and tip <= 0)",
        "what failed or was cancelled moved no money": (
            "status not in ('canceled', 'failed') or (amount = 0 and tip = 0 and fee = 0)"
        ),
    },
    "products": {
        "a period ends after it begins": "valid_to is null or valid_to > valid_from",
        "a price has a currency": "price is null or currency is not null",
    },
    "locations": {"the cut-off is an hour": "cutoff_hour between 0 and 23"},
    "inventory_levels": {"a snapshot is of its day": "cast(snapshot_at at time zone 'UTC' as date) = business_date"},
    "time_entries": {
        "work ends after it begins": "clock_out is null or clock_out >= clock_in",
        "what is over is not open": "status <> 'open' or clock_out is null",
        "breaks are not negative": "unpaid_break_minutes >= 0",
    },
}

ONE_PERIOD_AT_A_TIME = Check(
    "one_period_at_a_time",
    "Of each product one row is true at any time: periods do not overlap, and one is open. If it fails, report it.",
    """
    select connection as partition, product_id as subject,
        'one period begins at ' || following || ', before ' || coalesce(cast(valid_to as varchar), 'an open one ends') as problem
    from (
        select *, lead(valid_from) over (partition by connection, product_id order by valid_from) as following from {view}
    )
    where following is not null and (valid_to is null or valid_to > following)
    """,
)


def equals_its_sources(
    sources: Sequence[str],
    by: Sequence[str] = ("connection", "business_date", "currency"),
    sums: Sequence[str] = ("total", "net"),
) -> Check:
    """Return the rule that a core table is the union of the providers' tables.

    Args:
        sources: the providers' tables.
        by: the columns that rows are counted by, connection first.
        sums: the columns that are added up besides.

    """
    columns = ", ".join(dict.fromkeys((*by, *sums)))
    union = " union all ".join(f"select {columns} from {view_of(source)} where {{scope}}" for source in sources)
    added = "".join(f", sum({name}) as {name}" for name in sums)
    counted = f"select {', '.join(by)}, count(*) as n{added}"
    told = sums[0] if sums else "n"
    dated = [name for name in by if name == "business_date"]
    where = " || '|' || ".join(f"coalesce(a.{name}, b.{name})" for name in ("connection", *dated))
    rest = [name for name in by if name not in ("connection", "business_date")]
    what = " || ' / ' || ".join(f"coalesce(a.{name}, b.{name})" for name in rest) or "'rows'"
    return Check(
        "equals_its_sources",
        f"Rows and sums per {_listed(by)} equal those of the providers' tables.",
        f"""
        select {where} as partition, {what} as subject,
            format('{{}} rows and {{}} in all here, {{}} rows and {{}} there',
                coalesce(a.n, 0), coalesce(a.{told}, 0)::varchar,
                coalesce(b.n, 0), coalesce(b.{told}, 0)::varchar) as problem
        from ({counted} from {{view}} group by all) a
        full join ({counted} from ({union}) group by all) b
            on {" and ".join(f"a.{name} = b.{name}" for name in by)}
        where {" or ".join(f"a.{name} is distinct from b.{name}" for name in ("n", *sums))}
        """,
        reads=tuple(sources),
    )


def _listed(names: Sequence[str]) -> str:
    words = [name.replace("_", " ") for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


TIES_TO_TRANSACTIONS = Check(
    "ties_to_transactions",
    "Net sales, tax and totals per connection, business date and currency equal those of `transactions` to the cent.",
    """
    select coalesce(a.connection, b.connection) || '|' || coalesce(a.business_date, b.business_date) as partition,
        coalesce(a.currency, b.currency) as subject,
        'net ' || coalesce(a.net, 0) || ' here, ' || coalesce(b.net, 0) || ' in transactions; total '
            || coalesce(a.total, 0) || ' here, ' || coalesce(b.total, 0) || ' there' as problem
    from (
        select connection, business_date, currency, sum(net) as net, sum(tax) as tax, sum(total) as total
        from {view} group by all
    ) a
    full join (
        select connection, business_date, currency, sum(net) as net, sum(tax) as tax, sum(total) as total
        from transactions where {scope} group by all
    ) b on a.connection = b.connection and a.business_date = b.business_date and a.currency = b.currency
    where a.net is distinct from b.net or a.tax is distinct from b.tax or a.total is distinct from b.total
    """,
    reads=("transactions",),
)

DEMAND_TIES_TO_TRANSACTIONS = Check(
    "ties_to_transactions",
    "Units and net per connection, business date and currency equal those of the goods in `transactions`.",
    """
    select coalesce(a.connection, b.connection) || '|' || coalesce(a.business_date, b.business_date) as partition,
        coalesce(a.currency, b.currency) as subject,
        coalesce(a.quantity, 0) || ' units here, ' || coalesce(b.quantity, 0) || ' in transactions' as problem
    from (
        select connection, business_date, currency, sum(quantity) as quantity, sum(net) as net
        from {view} group by all
    ) a
    full join (
        select connection, business_date, currency, sum(quantity) as quantity, sum(net) as net
        from transactions
        where {scope} and line_type in ('item', 'custom_amount') and kind in ('sale', 'return')
        group by all
    ) b on a.connection = b.connection and a.business_date = b.business_date and a.currency = b.currency
    where a.quantity is distinct from b.quantity or a.net is distinct from b.net
    """,
    reads=("transactions",),
)
