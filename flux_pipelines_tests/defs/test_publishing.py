"""What a blocking check refuses, or what cannot be read, stays as it was; nothing else is held back by it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import httpx
import pyarrow as pa
import pytest

from flux_pipelines.defs import names
from flux_pipelines.defs.assets import core, union
from flux_pipelines.defs.assets.finance import agreement, tie_out
from flux_pipelines.defs.assets.normalized import checks_of
from flux_pipelines.defs.checks import Everything, Findings
from flux_pipelines.defs.code_location import build_definitions
from flux_pipelines.defs.publishing import failures, publish
from flux_pipelines.defs.runner import sync
from flux_pipelines.domain import tables
from flux_pipelines.domain.partition import Unit
from flux_pipelines.domain.tables import PRODUCTS, Table, named
from flux_pipelines.lake import Draft, session
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import settings
from flux_pipelines_tests.defs.conftest import END_DAY, Home, changing, open_home, settings_of

BEFORE, DAY = END_DAY - timedelta(days=1), END_DAY
DAYS = [BEFORE, DAY]
HARBOR, SAKURA = "square:harbor", "square:sakura"
GOOD = [(HARBOR, BEFORE), (HARBOR, DAY), (SAKURA, BEFORE)]
BAD = (SAKURA, DAY)
TABLES = ("square_transactions", "transactions", "daily_sales", "daily_item_demand")
#: In the middle of the day at both merchants' stores.
NOON = datetime(DAY.year, DAY.month, DAY.day, 4, tzinfo=UTC)


def contents(home: Home, names_: Sequence[str] = TABLES) -> dict[tuple[str, str, date], list[tuple[Any, ...]]]:
    """Return the rows of each table, connection and business date."""
    with session(home.runtime.lake) as database:
        return {
            (table, connection, day): database.execute(
                f"select * from {table} where connection = '{connection}' and business_date = date '{day}' order by all"
            ).fetchall()
            for table in names_
            for connection, day in [*GOOD, BAD]
        }


def changed(
    home: Home, before: Mapping[tuple[str, str, date], Any], names_: Sequence[str] = TABLES
) -> set[tuple[str, str, date]]:
    return {key for key, rows in contents(home, names_).items() if rows != before[key]}


def take(home: Home, order: dict[str, Any]) -> None:
    """Let the sandbox give out an order of Sakura's."""
    location = home.sandbox.world.merchant("sakura").locations[0].id
    at = NOON.isoformat().replace("+00:00", "Z")
    common = {"location_id": location, "state": "COMPLETED", "created_at": at, "updated_at": at, "closed_at": at}
    answer = httpx.post(
        f"{home.sandbox.url}/sandbox/documents",
        json={"location_id": location, "kind": "orders", "document": common | order},
    )
    assert answer.status_code == 200, answer.text


def yen(amount: int) -> dict[str, Any]:
    return {"amount": amount, "currency": "JPY"}


def line_of(amount: int) -> dict[str, Any]:
    return {
        "uid": "l1", "quantity": "1", "item_type": "CUSTOM_AMOUNT", "base_price_money": yen(amount),
        "total_money": yen(amount), "total_tax_money": yen(0), "total_discount_money": yen(0),
    }  # fmt: skip


def sell(home: Home, order_id: str, amount: int) -> None:
    take(home, {"id": order_id, "line_items": [line_of(amount)], "total_money": yen(amount)})


def poison(home: Home) -> None:
    """An order that gives back less than nothing: its rows are read, and break the contract of `transactions`."""
    amounts = {f"{name}_money": yen(0) for name in ("tax", "discount", "tip", "service_charge")} | {
        "total_money": yen(-1000)
    }
    less = line_of(-1000) | {"quantity": "-1"}
    back = {"uid": "r1", "return_line_items": [less], "return_amounts": amounts}
    take(
        home,
        {
            "id": "POISON",
            "returns": [back],
            "return_amounts": amounts,
            "total_money": yen(0),
            "net_amounts": {"total_money": yen(1000)},
        },
    )


def test_an_order_that_makes_the_sql_fail_goes_to_quarantine_alone(changing_home: Home) -> None:
    """An amount that no column can hold."""
    home = changing_home
    home.connect("harbor", "sakura")
    sell(home, "HUGE", 10**17)
    result = home.sync((HARBOR, DAY), (SAKURA, DAY))
    assert result.success
    (bad,) = home.runtime.quarantine.list()
    assert bad["order_id"] == "HUGE" or "HUGE" in str(bad)
    assert "no rows can be made of the record" in bad["reason"]
    assert "out of range" in bad["reason"].lower()
    assert home.partitions("square", "transactions") == [f"{HARBOR}|{DAY}", f"{SAKURA}|{DAY}"]
    assert home.ask("select count(*) > 100 from square_transactions") == [(True,)]


def refusals(home: Home) -> list[tuple[str, str]]:
    """Return connection and text of the open alerts about rows that were refused."""
    return [(one.connection_key, one.message) for one in home.runtime.state.alerts.open() if one.kind == "data_refused"]


def sell_everywhere(home: Home) -> None:
    """A sale at each connection on each of the days."""
    for merchant in ("harbor", "sakura"):
        location = home.sandbox.world.merchant(merchant).locations[0].id
        for day in DAYS:
            home.sandbox.world.sell(
                location, created=datetime(day.year, day.month, day.day, 16, tzinfo=UTC) - _WEST[merchant]
            )


#: 16:00 UTC is noon in New York; in Tokyo it is the next day already.
_WEST = {"harbor": timedelta(0), "sakura": timedelta(hours=12)}


def test_a_connections_date_that_is_refused_stays_and_everything_else_is_brought_up_to_date(
    changing_home: Home,
) -> None:
    home = changing_home
    keys = home.connect("harbor", "sakura")
    assert sync(home.runtime, keys, DAYS, beside_orders=False).failures == []
    before = contents(home)
    poison(home)
    sell_everywhere(home)

    report = sync(home.runtime, keys, DAYS)
    (failure,) = report.failures
    for word in ("square:sakura", str(DAY), "the check contract found", "a return has no positive amounts", "POISON"):
        assert word in failure
    assert "run the partition again" in failure
    assert changed(home, before) == {(table, *unit) for table in TABLES for unit in GOOD}
    assert home.ask("select count(*) from square_transactions where order_id = 'POISON'") == [(0,)]
    # The raw orders are there all the same, and Dagster says of this partition alone that it failed.
    assert home.partitions("square", "raw_orders") == sorted(f"{key}|{day}" for key, day in [*GOOD, BAD])
    run = next(run for run in home.instance.get_runs() if run.status is dg.DagsterRunStatus.FAILURE)
    lines = {event.partition for event in _materialised(home, run.run_id, names.provider_transactions("square"))}
    assert lines == {f"{SAKURA}|{BEFORE}"}
    ((connection, message),) = refusals(home)
    assert connection == SAKURA
    assert f"square/transactions of {DAY}" in message
    assert "POISON" in message


def test_a_date_that_was_refused_is_not_settled_and_mending_it_restates_nothing(changing_home: Home) -> None:
    home = changing_home
    home.connect("harbor", "sakura")
    assert home.sync((HARBOR, DAY), (SAKURA, DAY), asset_selection=[names.raw_orders("square")]).success
    right, manifest = miscount(home)
    orders = [names.provider_transactions("square")]
    assert not home.sync((HARBOR, DAY), (SAKURA, DAY), asset_selection=orders).success
    further = [dg.AssetKey(one) for one in ("restatements", "settled_orders")]

    def settle() -> set[str]:
        assert home.run("refresh_core", str(DAY), str(DAY)).success
        assert home.run("refresh_books", str(DAY), str(DAY), asset_selection=further).success
        return {row[0] for row in home.ask("select distinct connection from settled_orders")}

    assert settle() == {HARBOR}
    manifest.write_text(right)
    assert home.sync((SAKURA, DAY), (SAKURA, DAY), asset_selection=orders).success
    assert settle() == {HARBOR, SAKURA}
    assert home.ask("select count(*) from restatements") == [(0,)]


def miscount(home: Home) -> tuple[str, Path]:
    """Let Sakura's manifest count a yen more than its orders have; return what it was, and the file."""
    folder = home.runtime.settings.home / "lake" / "raw" / "square" / "orders" / "sakura" / str(DAY)
    counted = home.runtime.raw.read_manifest(SAKURA, DAY)
    assert counted is not None
    manifest, total = folder / "manifest.json", str(counted.totals["JPY"])
    right = manifest.read_text()
    assert right.count(total) == 1
    manifest.write_text(right.replace(total, str(counted.totals["JPY"] + 1)))
    return right, manifest


def test_the_automation_does_not_ask_for_what_comes_after_a_partition_that_was_refused(changing_home: Home) -> None:
    home = changing_home
    home.connect("harbor", "sakura")
    definitions = build_definitions()
    cursor = dg.evaluate_automation_conditions(definitions, home.instance).cursor
    poison(home)
    assert not home.sync((HARBOR, BEFORE), (SAKURA, DAY)).success
    done = dg.evaluate_automation_conditions(definitions, home.instance, cursor=cursor)
    asked = set(done.get_requested_partitions(names.TRANSACTIONS))
    assert asked == {str(BEFORE), str(DAY)}, "the good connection's rows are waited for"
    assert home.run("refresh_core", str(BEFORE), str(DAY)).success
    assert {
        row[0] for row in home.ask(f"select distinct connection from daily_sales where business_date = '{DAY}'")
    } == {HARBOR}
    # Once more over the same: nothing new has passed, so nothing is asked for again.
    cursor = dg.evaluate_automation_conditions(definitions, home.instance, cursor=done.cursor).cursor
    assert not home.sync((SAKURA, DAY), (SAKURA, DAY)).success
    done = dg.evaluate_automation_conditions(definitions, home.instance, cursor=cursor)
    assert done.get_requested_partitions(names.TRANSACTIONS) == set()


def _materialised(home: Home, run: str, key: dg.AssetKey) -> list[dg.DagsterEvent]:
    records = home.instance.get_records_for_run(run, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    events = [record.event_log_entry.get_dagster_event() for record in records]
    return [event for event in events if event.asset_key == key]


def test_a_data_file_that_is_damaged_costs_its_connections_date(changing_home: Home) -> None:
    home = changing_home
    keys = home.connect("harbor", "sakura")
    assert sync(home.runtime, keys, DAYS, beside_orders=False).failures == []
    before = contents(home)
    sell_everywhere(home)
    assert home.sync((HARBOR, BEFORE), (SAKURA, DAY)).success
    damage(home, "square/transactions", BAD)

    result = home.run("refresh_core", str(BEFORE), str(DAY))
    assert not result.success
    failure = next(event for event in result.all_events if event.is_step_failure).step_failure_data
    described = str(failure.user_failure_data.description) if failure.user_failure_data else ""
    assert f"{SAKURA}: {DAY}" in described
    assert "cannot be read" in described
    assert {event.partition for event in _materialised(home, result.run_id, names.TRANSACTIONS)} == {
        str(d) for d in DAYS
    }
    downstream = [names.DAILY_SALES, names.DAILY_ITEM_DEMAND]
    assert home.run("refresh_core", str(BEFORE), str(DAY), asset_selection=downstream).success
    assert changed(home, before, TABLES[1:]) == {(table, *unit) for table in TABLES[1:] for unit in GOOD}


def test_a_damaged_file_of_a_core_table_costs_its_connections_date_further_on(changing_home: Home) -> None:
    home = changing_home
    home.connect("harbor", "sakura")
    assert home.sync((HARBOR, BEFORE), (SAKURA, DAY)).success
    for job in ("refresh_core", "refresh_books"):
        assert home.run(job, str(BEFORE), str(DAY)).success
    before = {table: home.rows(table) for table in ("daily_sales", "tie_out", "settled_orders", "restatements")}
    assert all(before[table] for table in ("daily_sales", "tie_out", "settled_orders"))
    damage(home, "transactions", BAD)
    further = (
        ("refresh_core", ("daily_sales",)),
        ("refresh_books", ("tie_out",)),
        ("refresh_books", ("restatements", "settled_orders")),
    )
    for job, tables_made in further:
        result = home.run(job, str(BEFORE), str(DAY), asset_selection=[dg.AssetKey(one) for one in tables_made])
        assert not result.success
        failures = [event.step_failure_data.user_failure_data for event in result.all_events if event.is_step_failure]
        assert all(one is not None and f"{SAKURA}: " in str(one.description) for one in failures)
    assert {table: home.rows(table) for table in before} == before, "what cannot be made stays as it was"


def damage(home: Home, table: str, unit: tuple[str, date]) -> None:
    contract = named(table.rpartition("/")[2]).named(table)
    files = home.runtime.lake.local_files(contract, {"connection": unit[0], "business_date": unit[1]})
    assert files is not None
    Path(files.files[0][0]).write_bytes(b"not what was written")


# Every blocking check of the core tables

#: How rows of one connection and date are made to offend: `made` has those of the mart.
SABOTAGE: Mapping[str, str] = {
    "no_duplicate_lines": "select * from made union all (select * from made where {bad} limit 1)",
    # Not even staged: an amount that must be there is not.
    "contract": "select * replace (case when {bad} then null else {amount} end as {amount}) from made",
    "ties_to_transactions": "select * replace (case when {bad} then net + 1 else net end as net) from made",
    "equals_its_sources": "select * from made where not ({bad} and rn = 1)",
}
MARTS: Sequence[Callable[[], core.Mart]] = (
    core.transactions,
    agreement.daily_sales,
    core.daily_item_demand,
    tie_out.tie_out,
    *(lambda one=one: union.by_day(*one) for one in union.BY_DAY if one[0] is tables.PAYMENTS),
)


def marts_and_checks() -> list[tuple[Callable[[], core.Mart], str]]:
    return [(mart, check.name) for mart in MARTS for check in mart().checks if check.blocking]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("filled") / "home"
    with contextmanager(changing)() as sandbox, pytest.MonkeyPatch.context() as patch, settings_of(folder, patch):
        for home in open_home(sandbox):
            assert sync(home.runtime, home.connect("harbor", "sakura"), DAYS).failures == []
            yield home
    settings.cache_clear()


@pytest.mark.parametrize(
    ("make", "check"), marts_and_checks(), ids=lambda one: one if isinstance(one, str) else one().table.name
)
def test_each_blocking_check_of_each_core_table_keeps_out_what_it_refuses(
    filled: Home, make: Callable[[], core.Mart], check: str
) -> None:
    mart = make()
    if isinstance(mart, tie_out.TieOut):
        # `ties_out`, which does not block, is looked at over every date afterwards.
        checks = tuple(one for one in mart.checks if one.blocking)
        mart = replace(mart, checks=checks)
    before = rows_by_unit(filled, mart.table)
    assert before.keys() >= {*GOOD, BAD}
    written = core.Mart.replace(replace(mart, write=sabotaged(mart, check)), filled.runtime, DAYS)
    found = failures(written.findings.refused, written.refused)
    assert len(found) == 1, found
    (failure,) = found
    assert (failure.connection, failure.days) == (SAKURA, (DAY,))
    if check != "contract":
        assert check in {one.check_name for one in written.findings.results() if not one.passed}
        assert check in str(failure)
    assert rows_by_unit(filled, mart.table) == before
    mended = core.Mart.replace(mart, filled.runtime, DAYS)
    assert not failures(mended.findings.refused, mended.refused)


def sabotaged(mart: core.Mart, check: str) -> core.Writer:
    """Return a writer whose rows of one connection and date offend a check."""
    table = mart.table
    amount = next(c.name for c in table if c.required and c.type == "money")
    query = SABOTAGE[check].format(bad=f"(connection = '{SAKURA}' and business_date = date '{DAY}')", amount=amount)

    @contextmanager
    def write(
        runtime: Runtime, days: Sequence[date], refused: Collection[Unit], without: core.Without
    ) -> Iterator[Draft]:
        with mart.write(runtime, days, refused, without) as draft, duckdb.connect() as database:
            database.execute("SET TimeZone = 'UTC'")
            database.register("drafted", _read(draft))
            numbered = "row_number() over (partition by connection, business_date) as rn"
            database.execute(f"create table made as select *, {numbered} from drafted")
            rows = database.sql(f"select {', '.join(table.column_names)} from ({query})").to_arrow_table()
            partitions = [
                {name: value for name, value in zip(table.partition_by, one, strict=True) if value is not None}
                for one in draft.partitions
            ]
            with runtime.lake.draft(table, rows, partitions) as again:
                yield again

    return write


def _read(draft: Draft) -> pa.Table:
    import pyarrow.parquet as pq

    pieces = []
    schema = draft.table.arrow_schema()
    for file in draft.files:
        rows = pq.read_table(file.path)
        for name, value in zip(draft.table.partition_by, file.partition, strict=True):
            rows = rows.append_column(
                name, pa.array([value] * rows.num_rows, pa.string()).cast(schema.field(name).type)
            )
        pieces.append(rows.select(draft.table.column_names).cast(schema))
    return pa.concat_tables(pieces)


def rows_by_unit(home: Home, table: Table) -> dict[tuple[str, date], list[tuple[Any, ...]]]:
    found: dict[tuple[str, date], list[tuple[Any, ...]]] = {}
    columns = table.column_names
    for row in home.ask(f"select * from {table.name} where business_date between '{BEFORE}' and '{DAY}' order by all"):
        values = dict(zip(columns, row, strict=True))
        found.setdefault((values["connection"], values["business_date"]), []).append(row)
    return found


def test_a_connection_that_is_refused_keeps_its_catalog(filled: Home) -> None:
    """Tables without dates: what is refused is a connection."""
    lake, key = filled.runtime.lake, dg.AssetKey(PRODUCTS.name)
    before = lake.read(PRODUCTS).read_all()
    rows = before.to_pylist()
    twice = pa.Table.from_pylist(
        [*rows, next(row for row in rows if row["connection"] == SAKURA)], PRODUCTS.arrow_schema()
    )
    findings = Findings(checks_of(PRODUCTS), key)
    drafting = lake.draft(PRODUCTS, twice, [{"connection": HARBOR}, {"connection": SAKURA}])
    publish(lake, drafting, findings, Everything(), where={})
    assert set(findings.refused) == {SAKURA}
    assert lake.read(PRODUCTS).read_all().sort_by("product_id").equals(before.sort_by("product_id"))


def test_totals_that_do_not_add_up_are_refused(changing_home: Home) -> None:
    """`order_totals` compares rows with what was counted when the orders were landed."""
    home = changing_home
    home.connect("sakura")
    assert home.sync((SAKURA, BEFORE), (SAKURA, DAY)).success
    before = home.rows("square_transactions")
    right, manifest = miscount(home)
    result = home.sync((SAKURA, BEFORE), (SAKURA, DAY), asset_selection=[names.provider_transactions("square")])
    assert not result.success
    checks = {one.check_name: one.passed for one in result.get_asset_check_evaluations()}
    assert checks["order_totals"] is False
    assert home.recorded(result.run_id) == {f"{SAKURA}|{BEFORE}"}
    assert home.rows("square_transactions") == before
    ((connection, message),) = refusals(home)
    assert connection == SAKURA
    assert f"square/transactions of {DAY}" in message

    manifest.write_text(right)
    assert home.sync((SAKURA, DAY), (SAKURA, DAY), asset_selection=[names.provider_transactions("square")]).success
    assert refusals(home) == [], "it is told until it has passed"
