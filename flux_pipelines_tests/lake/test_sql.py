from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from flux_pipelines.domain.errors import ConfigurationError, TableDamagedError
from flux_pipelines.domain.tables import SQL_TYPES, TABLES, TRANSACTIONS
from flux_pipelines.lake import DeltaLake, session
from flux_pipelines_tests.lake.rows import ACME, DAY, days, partition, raw_partition, transactions

SQUARE = TRANSACTIONS.named("square/transactions")


def test_every_table_is_a_view_under_its_names(lake: DeltaLake) -> None:
    lake.replace(TRANSACTIONS, transactions(days(3)), [partition(day) for day in days(3)])
    lake.replace(SQUARE, transactions(days(2)), [raw_partition(day) for day in days(2)])
    opened = session(lake)
    assert opened.execute("select count(*), sum(net) from transactions").fetchall() == [(9, Decimal("11.1105"))]
    assert opened.execute("select count(*) from square.transactions").fetchall() == [(6,)]
    assert opened.execute("select count(*) from square_transactions").fetchall() == [(6,)]
    names = {row[0] for row in opened.execute("show tables").fetchall()}
    assert names >= {table.name for table in TABLES} | {"square_transactions"}
    opened.close()


def test_a_table_not_made_yet_is_empty_with_its_columns(local: DeltaLake) -> None:
    opened = session(local)
    for table in TABLES:
        assert opened.execute(f"select * from {table.name}").fetchall() == []
        described = {row[0]: row[1] for row in opened.execute(f"describe {table.name}").fetchall()}
        assert described == {column.name: SQL_TYPES[column.type] for column in table}
    assert local.tables() == []


def test_a_made_table_has_the_types_of_its_contract(local: DeltaLake) -> None:
    local.replace(TRANSACTIONS, transactions(), [partition()])
    described = {row[0]: row[1] for row in session(local).execute("describe transactions").fetchall()}
    assert described == {column.name: SQL_TYPES[column.type] for column in TRANSACTIONS}


def test_only_the_tables_asked_for_are_opened(local: DeltaLake) -> None:
    local.replace(TRANSACTIONS, transactions(), [partition()])
    local.replace(SQUARE, transactions(each=2), [raw_partition()])
    for name in ("square_transactions", "square.transactions", "square/transactions"):
        with session(local, [name]) as database:
            assert database.execute("select count(*) from square_transactions").fetchall() == [(2,)]
            assert database.execute("select count(*) from square.transactions").fetchall() == [(2,)]
            with pytest.raises(duckdb.CatalogException):
                database.execute("select 1 from transactions")
    with session(local, ["toast_transactions", "daily_sales"]) as database:
        assert database.execute("select * from toast.transactions, daily_sales").fetchall() == []
    with pytest.raises(ConfigurationError, match="no table 'nonsense'"):
        session(local, ["nonsense"])


@pytest.mark.parametrize(
    "query",
    [
        "copy (select 1) to '{folder}/out.csv'",
        "copy transactions to '{folder}/out.parquet' (format parquet)",
        "attach '{folder}/other.db'",
        "attach ':memory:' as other",
        "select * from read_csv('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from read_text('/etc/passwd')",
        "select * from read_parquet('{folder}/*.parquet')",
        "select * from glob('/etc/*')",
        "select getenv('HOME')",
        "select * from rows",
        "install httpfs",
        "load httpfs",
        "create table mine (a int)",
        "create secret s (type s3)",
        "insert into transactions select * from transactions",
        "delete from transactions",
        "drop view square.transactions",
        "set enable_external_access = true",
        "set threads = 64",
        "reset lock_configuration",
        "export database '{folder}/all'",
        "pragma database_list",
        "select 1; select 2",
        "select 1; drop view transactions",
        "",
        "selec 1",
        "select nothing from transactions",
    ],
)
def test_what_does_not_read_the_lake_is_refused(local: DeltaLake, tmp_path: Path, query: str) -> None:
    rows = transactions()
    local.replace(TRANSACTIONS, rows, [partition()])
    folder = tmp_path / "outside"
    folder.mkdir()
    opened = session(local)
    with pytest.raises(ConfigurationError):
        opened.execute(query.replace("{folder}", str(folder)))
    assert list(folder.iterdir()) == []
    assert opened.execute("select count(*) from transactions").fetchall() == [(3,)]


@pytest.mark.parametrize(
    "statement",
    [
        "copy (select 1) to '{folder}/out.csv'",
        "attach '{folder}/other.db'",
        "select * from read_csv('/etc/passwd')",
        "select * from rows",
        "set enable_external_access = true",
        "set memory_limit = '64GB'",
    ],
)
def test_the_connection_itself_is_locked_too(local: DeltaLake, tmp_path: Path, statement: str) -> None:
    rows = transactions()
    assert rows.num_rows
    with session(local) as database, pytest.raises(duckdb.Error):
        database.execute(statement.replace("{folder}", str(tmp_path)))


@pytest.mark.parametrize(
    "query",
    [
        "select 1",
        "with a as (select 1) select * from a",
        "from transactions limit 1",
        "values (1)",
        "describe transactions",
        "show tables",
        "show all tables",
        "summarize transactions",
        "explain select * from transactions",
        "select * from transactions where business_date = ? ",
    ],
)
def test_what_reads_is_run(local: DeltaLake, query: str) -> None:
    local.replace(TRANSACTIONS, transactions(), [partition()])
    assert session(local).execute(query, [DAY] if "?" in query else []).fetchall()


def test_a_condition_on_dates_opens_only_those_files(local: DeltaLake) -> None:
    year = days(365)
    local.replace(TRANSACTIONS, transactions(year, 2), [partition(day) for day in year])
    with session(local, ["transactions"]) as database:
        for path in Path(local.root).glob("tables/transactions/*/*/*.parquet"):
            if not "2025-06-03" <= path.parent.name <= "2025-06-05":
                path.unlink()
        # Any file outside the condition would fail to open: the conditions reach the list of files.
        for condition, expected in (
            ("business_date between '2025-06-03' and '2025-06-05'", 6),
            ("business_date >= date '2025-06-03' and business_date < date '2025-06-05'", 4),
            ("business_date in (date '2025-06-04')", 2),
            (f"business_date = '2025-06-03' and connection = '{ACME}' and net > 1", 2),
            ("business_date between '2025-06-03' and '2025-06-05' and connection = 'square:none'", 0),
        ):
            query = f"select count(net), count(distinct line_id) from transactions where {condition}"
            assert database.execute(query).fetchall()[0][0] == expected, condition
    with pytest.raises(TableDamagedError, match="'transactions'"), session(local, ["transactions"]) as database:
        database.execute("select sum(net) from transactions").fetchall()
    with pytest.raises(TableDamagedError, match="'transactions'"):
        session(local).execute("select sum(net) from transactions")


def test_conditions_on_decimals_and_instants_are_exact(local: DeltaLake) -> None:
    amounts = [Decimal(n) / 10_000 for n in range(-30_000, 30_000, 7)] + [Decimal("99999999999999.9999"), Decimal(0)]
    rows = transactions(each=len(amounts))
    position = rows.schema.get_field_index("net")
    rows = rows.set_column(position, rows.schema.field(position), pa.array(amounts, pa.decimal128(18, 4)))
    local.replace(TRANSACTIONS, rows, [partition()])
    with session(local) as database:
        for bound in ("1.0007", "0", "-2.9999", "1.00070001", "99999999999999.9999", "0.1"):
            for operator in ("<", "<=", "=", ">=", ">", "<>"):
                found = database.execute(f"select count(*) from transactions where net {operator} {bound}").fetchall()
                python = {"<": "__lt__", "<=": "__le__", "=": "__eq__", ">=": "__ge__", ">": "__gt__", "<>": "__ne__"}
                wanted = sum(getattr(amount, python[operator])(Decimal(bound)) for amount in amounts)
                assert found == [(wanted,)], (operator, bound)
        assert database.execute("select sum(net) from transactions").fetchall() == [(sum(amounts),)]
        found = database.execute("select count(*) from transactions where net in (0, 0.0001, 99999999999999.9999)")
        assert found.fetchall() == [
            (sum(a in (0, Decimal("0.0001"), Decimal("99999999999999.9999")) for a in amounts),)
        ]
        when = "occurred_at = timestamptz '2025-03-01 12:00:00+00'"
        assert database.execute(f"select count(*) from transactions where {when}").fetchall() == [(len(amounts),)]
        assert database.execute("select max(occurred_at)::varchar from transactions").fetchall() == [
            ("2025-03-01 12:00:00+00",)
        ]


def test_a_session_sees_the_tables_as_they_were_when_it_was_opened(local: DeltaLake) -> None:
    local.replace(TRANSACTIONS, transactions(), [partition()])
    with session(local) as database:
        local.replace(TRANSACTIONS, transactions(each=9), [partition()])
        assert database.execute("select count(*) from transactions").fetchall() == [(3,)]
        reader = database.sql("select * from transactions").to_arrow_reader(1000)
        local.replace(SQUARE, reader, [raw_partition()])
    assert session(local).execute("select count(*) from square.transactions").fetchall() == [(3,)]


def test_a_sort_larger_than_memory_uses_temporary_files_and_leaves_none(local: DeltaLake) -> None:
    opened = session(local, [], memory_limit="100MB", threads=1)
    query = "select max(text) from (select repeat(md5(i::varchar), 8) as text from range(900000) t(i) order by text)"
    assert opened.execute(query).fetchall()
    opened.close()
    left = [path for path in (Path(local.root) / ".staging").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == []


def test_a_table_that_cannot_be_opened_is_named(local: DeltaLake) -> None:
    local.replace(TRANSACTIONS, transactions(), [partition()])
    (Path(local.root) / f"tables/transactions/_delta_log/{1:020}.json").write_text("{")
    with pytest.raises(TableDamagedError, match="'transactions'"):
        session(local)


def test_sessions_over_partitions_share_an_instance_and_see_nothing_of_each_other(
    local: DeltaLake, tmp_path: Path
) -> None:
    first, second = days(2)
    local.replace(TRANSACTIONS, transactions(days(2)), [partition(day) for day in days(2)])
    (tmp_path / "other.csv").write_text("secret")
    query, found = "select distinct business_date from transactions", []
    with (
        session(local, ["transactions"], where={"business_date": [first]}) as one,
        session(local, ["transactions"], where={"business_date": [second]}) as other,
        session(local, ["daily_sales"], where={"business_date": [second]}) as third,
    ):
        found = [one.execute(query).fetchall(), other.execute(query).fetchall()]
        with pytest.raises(duckdb.CatalogException):
            third.execute(query)
        for database in (one, third):
            with pytest.raises(duckdb.PermissionException):
                database.execute(f"select * from read_csv('{tmp_path / 'other.csv'}')")
            with pytest.raises(duckdb.InvalidInputException):
                database.execute("set memory_limit = '4GB'")
    assert found == [[(first,)], [(second,)]]


def test_an_instance_that_broke_is_not_used_again(local: DeltaLake) -> None:
    local.replace(TRANSACTIONS, transactions(), [partition()])

    def instance() -> str:
        with session(local, [], where={"business_date": [DAY]}) as database:
            database.execute("create table if not exists memory.main.mark as select uuid()::varchar")
            return str(database.execute("from memory.main.mark").fetchall())

    before = instance()
    assert instance() == before
    with (
        pytest.raises(duckdb.FatalException),
        session(local, ["transactions"], where={"business_date": [DAY]}),
    ):
        raise duckdb.FatalException("the database has been invalidated")
    assert instance() != before
