"""Tables that an earlier version of Flux made, whose contract has changed since, on both kinds of storage."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from threading import Barrier

import duckdb
import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable
from deltalake.transaction import AddAction

from flux_pipelines.domain.errors import TableDamagedError
from flux_pipelines.domain.tables import SQL_TYPES, TABLES, TIE_OUT, TRANSACTIONS, Column, Table
from flux_pipelines.lake import DeltaLake, object_store, session
from flux_pipelines.lake.delta import VersionChangedError
from flux_pipelines_tests.lake.rows import days, partition, transactions

FIRST, SECOND, THIRD, FOURTH = days(4)


def older(
    table: Table, *, without: Sequence[str] = (), required: Sequence[str] = (), more: Sequence[str] = ()
) -> Table:
    """The contract as an earlier version had it: columns fewer, required then, and such as it no longer has."""
    kept = [replace(c, required=c.required or c.name in required) for c in table if c.name not in without]
    gone = [Column(name, "text", "Something that was kept once.") for name in more]
    return replace(table, columns=(kept[0], *gone, *kept[1:]))


#: What an earlier version had, and a column that is gone.
OLDER = older(TIE_OUT, without=["gap_reason"], required=["gap", "gap_orders"], more=["legacy"])


def on(*wanted: date) -> list[dict[str, date]]:
    return [{"business_date": day} for day in wanted]


def rows_of(table: Table, *wanted: date, net: str = "1", empty: str = "") -> pa.Table:
    """Three rows a date, without values in a column."""
    rows = transactions(wanted, table=table, net=net)
    if not empty:
        return rows
    position = rows.schema.get_field_index(empty)
    return rows.set_column(position, rows.schema.field(position), pa.nulls(len(rows), rows.schema.types[position]))


def write(lake: DeltaLake, table: Table, *wanted: date, net: str = "1", empty: str = "") -> None:
    lake.replace(table, rows_of(table, *wanted, net=net, empty=empty), on(*wanted))


def own_schema(lake: DeltaLake) -> pa.Schema:
    """The schema that the table's log gives to whoever reads Delta tables."""
    return pa.schema(DeltaTable(lake.uri("tie_out"), storage_options=lake._store.delta_options()).schema().to_arrow())


@contextmanager
def sessions(lake: DeltaLake, *wanted: date) -> Iterator[list[duckdb.DuckDBPyConnection]]:
    """A session over everything, and one over some dates alone."""
    with session(lake, ["tie_out"]) as every, session(lake, ["tie_out"], where={"business_date": wanted}) as some:
        yield [every, some]


def test_a_table_of_an_earlier_version_is_read_with_todays_columns(lake: DeltaLake) -> None:
    write(lake, OLDER, FIRST, SECOND)
    expected = rows_of(TIE_OUT, FIRST, SECOND, empty="gap_reason")
    assert lake.read(TIE_OUT).read_all().equals(expected)
    assert lake.read(TIE_OUT, columns=["gap_reason"], where={"business_date": FIRST}).read_all().num_rows == 3
    dataset = lake.dataset(TIE_OUT)
    assert dataset is not None
    assert dataset.schema == TIE_OUT.arrow_schema()
    with sessions(lake, FIRST, SECOND) as opened:
        for database in opened:
            described = {row[0]: row[1] for row in database.execute("describe tie_out").fetchall()}
            assert described == {column.name: SQL_TYPES[column.type] for column in TIE_OUT}
            assert list(described) == list(TIE_OUT.column_names)
            found = database.sql("from tie_out order by business_date").to_arrow_table()
            assert found.cast(TIE_OUT.arrow_schema()).equals(expected)
            assert database.execute("select count(*) from tie_out where gap_reason is null").fetchall() == [(6,)]
            assert database.execute("select count(*) from tie_out where gap_reason > ''").fetchall() == [(0,)]
    assert lake.version("tie_out") == 1, "reading changes nothing"


def test_the_first_rows_of_today_bring_the_schema_up_to_date(lake: DeltaLake) -> None:
    write(lake, OLDER, FIRST, SECOND, THIRD)
    before = lake.version("tie_out")
    write(lake, TIE_OUT, SECOND, empty="gap")
    write(lake, TIE_OUT, THIRD)
    entries = [entry["operation"] for entry in lake.history("tie_out")]
    assert entries.count("ADD COLUMN") == 1, "once, and not again for the rows after"
    schema = own_schema(lake)
    assert {field.name: field for field in TIE_OUT.arrow_schema()} == {
        field.name: field.remove_metadata() for field in schema if field.name != "legacy"
    }
    assert schema.field("legacy").nullable, "files have it no more"
    answer = [(FIRST, None, 3), (SECOND, None, 0), (THIRD, "gap_reason-1", 3)]
    query = (
        "select business_date, any_value(gap_reason) filter (gap_reason like '%1'), count(gap) from tie_out group by 1"
    )
    with sessions(lake, FIRST, SECOND, THIRD) as opened:
        for database in opened:
            found = database.execute(f"{query} order by 1").fetchall()
            assert [(day, reason if day != SECOND else None, gaps) for day, reason, gaps in found] == answer
            assert database.execute(
                "select count(*) from tie_out where gap_reason = 'gap_reason-1' and business_date = ?", [THIRD]
            ).fetchall() == [(1,)]
    read = lake.read(TIE_OUT, columns=["business_date", "gap_reason", "gap"]).read_all().to_pylist()
    assert [row["business_date"] for row in read if row["gap_reason"] is None] == [FIRST] * 3
    assert [row["business_date"] for row in read if row["gap"] is None] == [SECOND] * 3
    assert lake.read(TIE_OUT, version=before, columns=["gap_reason"]).read_all()["gap_reason"].null_count == 9


def test_a_date_that_is_made_again_has_todays_columns_though_no_amount_has_changed(lake: DeltaLake) -> None:
    write(lake, OLDER, FIRST)
    write(lake, TIE_OUT, FIRST)
    assert lake.read(TIE_OUT).read_all().equals(rows_of(TIE_OUT, FIRST))
    lake.replace(TIE_OUT, rows_of(TIE_OUT), on(FIRST))
    assert lake.read(TIE_OUT).read_all().num_rows == 0


def test_a_column_that_is_no_longer_required_may_be_empty(lake: DeltaLake) -> None:
    write(lake, older(TIE_OUT, required=["gap"]), FIRST)
    write(lake, TIE_OUT, SECOND, empty="gap")
    assert own_schema(lake) == TIE_OUT.arrow_schema()
    with sessions(lake, FIRST, SECOND) as opened:
        for database in opened:
            assert database.execute("select count(*), count(gap) from tie_out").fetchall() == [(6, 3)]
    assert lake.read(TIE_OUT).read_all()["gap"].null_count == 3


def test_an_earlier_version_that_writes_once_more_loses_nothing(lake: DeltaLake) -> None:
    """As when an upgrade is taken back for a while."""
    write(lake, TIE_OUT, FIRST, SECOND)
    write(lake, older(TIE_OUT, without=["gap_reason"]), SECOND, THIRD)
    write(lake, TIE_OUT, FOURTH)
    with sessions(lake, *days(4)) as opened:
        for database in opened:
            found = database.execute(
                "select business_date, count(gap_reason) from tie_out group by 1 order by 1"
            ).fetchall()
            assert found == [(FIRST, 3), (SECOND, 0), (THIRD, 0), (FOURTH, 3)]
    assert lake.read(TIE_OUT).read_all()["gap_reason"].null_count == 6


def test_a_draft_is_seen_beside_files_of_both_ages(lake: DeltaLake) -> None:
    write(lake, OLDER, FIRST, SECOND, THIRD)
    query = "select business_date, count(gap_reason), sum(net) from tie_out group by 1 order by 1"
    for committed in ([], [SECOND]):
        if committed:
            write(lake, TIE_OUT, *committed, net="5")
        with lake.draft(TIE_OUT, rows_of(TIE_OUT, THIRD, net="7"), on(THIRD)) as draft:
            with session(lake, ["tie_out"], where={"business_date": days(3)}, draft=draft) as database:
                assert database.execute(query).fetchall() == [
                    (FIRST, 0, 3),
                    (SECOND, 3 * len(committed), 3 + 12 * len(committed)),
                    (THIRD, 3, 21),
                ]
            assert lake.rows_by_partition("tie_out")[(THIRD.isoformat(),)] == 3
            if committed:
                draft.commit()
    assert lake.read(TIE_OUT, columns=["net"], where={"business_date": THIRD}).read_all()["net"][0].as_py() == 7


def test_files_of_both_ages_under_a_schema_that_nobody_brought_up_to_date(local: DeltaLake, tmp_path: Path) -> None:
    """As versions left it that committed new columns without saying so."""
    write(local, OLDER, FIRST)
    other = DeltaLake(object_store(tmp_path / "other"))
    write(other, TIE_OUT, SECOND)
    found = other.local_files(TIE_OUT, {})
    assert found is not None
    shutil.copy(found.files[0][0], Path(local.uri("tie_out")) / "new.parquet")
    DeltaTable(local.uri("tie_out")).create_write_transaction(
        [AddAction("new.parquet", 1, {"business_date": SECOND.isoformat()}, 0, True, '{"numRecords": 3}')],
        "append",
        TIE_OUT.arrow_schema(),
        ["business_date"],
        commit_properties=CommitProperties(max_commit_retries=0),
    )
    for _ in range(2):
        with sessions(local, FIRST, SECOND) as opened:
            for database in opened:
                assert database.execute(
                    "select business_date, count(gap_reason) from tie_out where business_date < ? group by 1 order by 1",
                    [THIRD],
                ).fetchall() == [(FIRST, 0), (SECOND, 3)]
        write(local, TIE_OUT, THIRD)


def test_every_table_may_gain_columns(local: DeltaLake) -> None:
    for table in TABLES:
        nullable = [column.name for column in table if not column.required and column.name not in table.partition_by]
        rows = transactions([FIRST], table=(before := older(table, without=nullable, more=["legacy"])))
        keys = pa.TableGroupBy(rows, list(table.partition_by)).aggregate([]).to_pylist()
        local.replace(before, rows, keys)
        today = transactions([SECOND], table=table)
        keys = pa.TableGroupBy(today, list(table.partition_by)).aggregate([]).to_pylist()
        local.replace(table, today, keys)
        for where in (None, {}):
            with session(local, [table.name], where=where) as database:
                found = database.sql(f"from {table.name}").to_arrow_table()
            assert found.column_names == list(table.column_names)
            assert [found[name].null_count for name in nullable] == [len(found) - 3] * len(nullable)


def test_files_are_not_looked_at_before_they_are_read(local: DeltaLake) -> None:
    """Which takes seconds for years of dates: a table is opened by its log and at most one file."""
    year = days(30)
    write(local, OLDER, *year[:5])
    write(local, TIE_OUT, year[5])
    local.replace(TRANSACTIONS, transactions(year, 1), [partition(day) for day in year])
    for table, alike in ((TIE_OUT, False), (TRANSACTIONS, True)):
        found = local.local_files(table, {"business_date": year})
        assert found is not None
        assert found.alike is alike
        for path, _ in found.files[1:]:
            Path(path).write_bytes(b"not Parquet")
        with session(local, [table.name], where={"business_date": year}) as database:
            assert len(database.execute(f"describe {table.name}").fetchall()) == len(table.columns)
        assert session(local, [table.name]).execute(f"describe {table.name}").fetchall()


UNFIT = {
    "it has no column 'fees', which is required": older(TIE_OUT, without=["fees", "gap_reason"]),
    "its column 'gap_orders' is long, no longer string": replace(
        TIE_OUT, columns=tuple(replace(c, type="integer") if c.name == "gap_orders" else c for c in TIE_OUT)
    ),
    r"it is partitioned by \['currency', 'business_date'\], no longer \['business_date'\]": replace(
        TIE_OUT, partition_by=("currency", "business_date")
    ),
}


@pytest.mark.parametrize("wrong", UNFIT)
def test_a_table_that_cannot_be_made_to_fit_is_one_error_that_says_what_to_do(lake: DeltaLake, wrong: str) -> None:
    table = UNFIT[wrong]
    rows = rows_of(table, FIRST, SECOND)
    lake.replace(table, rows, pa.TableGroupBy(rows, list(table.partition_by)).aggregate([]).to_pylist())
    said = f"'tie_out' was made by another version of Flux.*{wrong}.*`flux rebuild`.* {FIRST} to {SECOND} .*Upgrading"
    for attempt in (
        lambda: lake.read(TIE_OUT),
        lambda: lake.dataset(TIE_OUT, where={"business_date": FIRST}),
        lambda: session(lake),
        lambda: session(lake, ["tie_out"], where={"business_date": FIRST}),
        lambda: write(lake, TIE_OUT, THIRD),
    ):
        with pytest.raises(TableDamagedError, match=said):
            attempt()
    assert lake.version("tie_out") == 1, "it is left as it is"
    assert lake.read(table).read_all().num_rows == 6


def test_empty_values_in_a_column_that_is_required_now_are_named(lake: DeltaLake) -> None:
    before = replace(TIE_OUT, columns=tuple(replace(c, required=c.required and c.name != "net") for c in TIE_OUT))
    write(lake, before, FIRST, empty="net")
    with pytest.raises(TableDamagedError, match=r"'tie_out'.*'net', which is required, is empty in some rows"):
        lake.read(TIE_OUT).read_all()
    write(lake, TIE_OUT, FIRST)
    assert lake.read(TIE_OUT).read_all()["net"].null_count == 0


def test_who_builds_on_a_version_is_told_of_other_writers_only(lake: DeltaLake) -> None:
    write(lake, OLDER, FIRST)
    assert lake.replace(TIE_OUT, rows_of(TIE_OUT, SECOND), on(SECOND), if_version=1).version == 3
    with pytest.raises(VersionChangedError):
        lake.replace(TIE_OUT, rows_of(TIE_OUT, THIRD), on(THIRD), if_version=1)


def test_writers_of_both_versions_at_once_lose_nothing(root: str) -> None:
    wanted = days(12)
    write(DeltaLake(object_store(root)), OLDER, *wanted)
    together = Barrier(4)

    def rewrite(me: int) -> None:
        lake = DeltaLake(object_store(root))  # of its own: it does not wait for the others, but meets them in the log
        together.wait()
        for n in range(me, 12, 4):
            write(lake, OLDER if me == 3 else TIE_OUT, wanted[n], net=str(n + 2))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(rewrite, range(4)))
    with sessions(DeltaLake(object_store(root)), *wanted) as opened:
        for database in opened:
            found = database.execute(
                "select business_date, sum(net), count(gap_reason) from tie_out group by 1 order by 1"
            ).fetchall()
            assert found == [(day, 3 * (n + 2), 0 if n % 4 == 3 else 3) for n, day in enumerate(wanted)]
