from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from flux_pipelines.domain.errors import (
    ConfigurationError,
    ContractBrokenError,
    StorageFullError,
    StorageUnavailableError,
    TableDamagedError,
)
from flux_pipelines.domain.tables import DAILY_SALES, TABLES, TRANSACTIONS, Table
from flux_pipelines.lake import DeltaLake, object_store, session
from flux_pipelines.lake.delta import VersionChangedError
from flux_pipelines_tests.lake.rows import ACME, DAY, days, lines, partition, raw_partition, tiny_disk, transactions

PROVIDERS = TRANSACTIONS.named("square/transactions")


def test_a_partition_is_replaced_whole_and_others_are_not_touched(lake: DeltaLake) -> None:
    first, second, third = days(3)
    commit = lake.replace(PROVIDERS, transactions(days(3)), [raw_partition(day) for day in days(3)])
    assert (commit.rows, commit.files) == (9, 3)
    lake.replace(PROVIDERS, transactions([first], 2, "square:other"), [raw_partition(first, "square:other")])
    commit = lake.replace(PROVIDERS, transactions([second], 5, net="9"), [raw_partition(second)])
    assert lake.version(PROVIDERS.name) == commit.version
    assert {key: len(value) for key, value in lines(lake, PROVIDERS).items()} == {
        (ACME, first): 3,
        (ACME, second): 5,
        (ACME, third): 3,
        ("square:other", first): 2,
    }
    assert lake.rows_by_partition(PROVIDERS.name, {"connection": ACME}) == {
        (ACME, day.isoformat(), day.isoformat()): rows for day, rows in zip(days(3), (3, 5, 3), strict=True)
    }
    assert lake.tables() == ["square/transactions"]
    assert not lake.exists("transactions")


def test_what_a_partition_leaves_open_is_replaced_whatever_value_it_has(lake: DeltaLake) -> None:
    first, second, third = days(3)

    def counted(*dates: tuple[date, date]) -> pa.Table:
        raw, on = (pa.array([pair[n] for pair in dates], pa.date32()) for n in (0, 1))
        rows = transactions([DAY], len(dates))
        for name, values in (("raw_date", raw), ("business_date", on)):
            rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), values)
        return rows

    def there() -> dict[tuple[str, str], int]:
        return {key[1:]: rows for key, rows in lake.rows_by_partition(PROVIDERS.name).items()}

    one, two, three = (day.isoformat() for day in (first, second, third))
    lake.replace(
        PROVIDERS,
        counted((first, first), (first, third), (second, third)),
        [raw_partition(first), raw_partition(second)],
    )
    assert there() == {(one, one): 1, (one, three): 1, (two, three): 1}
    # What is of the other raw partition stays, on a date that both have rows on too.
    commit = lake.replace(PROVIDERS, counted((first, first), (first, second)), [raw_partition(first)])
    assert there() == {(one, one): 1, (one, two): 1, (two, three): 1}
    assert {key[1:] for key in commit.changed} == {(one, two), (one, three)}
    again = lake.replace(PROVIDERS, counted((first, first), (first, second)), [raw_partition(first)])
    assert (again.version, again.changed) == (commit.version, frozenset())
    with lake.draft(
        PROVIDERS, counted((first, third), (second, third)), [raw_partition(first), raw_partition(second)]
    ) as draft:
        draft.leave({(ACME, one, None)})
        draft.commit()
    assert there() == {(one, one): 1, (one, two): 1, (two, three): 1}
    with session(
        lake, [PROVIDERS.name], where={"business_date": days(3)}, without={PROVIDERS.name: {(ACME, None, three)}}
    ) as sql:
        assert sql.execute("select raw_date, business_date from square_transactions order by all").fetchall() == [
            (first, first),
            (first, second),
        ]


def test_a_partition_without_rows_is_emptied_in_the_same_commit(lake: DeltaLake) -> None:
    lake.replace(TRANSACTIONS, transactions(days(3)), [partition(day) for day in days(3)])
    commit = lake.replace(TRANSACTIONS, transactions([DAY], 1), [partition(day) for day in days(2)])
    assert {key[1]: len(value) for key, value in lines(lake).items()} == {DAY: 1, days(3)[2]: 3}
    emptied = lake.replace(TRANSACTIONS, transactions([]), [partition(day) for day in days(3)])
    assert emptied.version == commit.version + 1
    assert lines(lake) == {}
    assert lake.replace(TRANSACTIONS, transactions([]), [partition(DAY)]).version == emptied.version


def test_a_table_without_rows_is_made_and_read(lake: DeltaLake) -> None:
    assert lake.read(TRANSACTIONS).read_all().num_rows == 0
    assert lake.version("transactions") is None
    commit = lake.replace(TRANSACTIONS, transactions([]), [partition()])
    assert (commit.version, commit.rows, commit.files) == (0, 0, 0)
    assert lake.exists("transactions")
    assert lake.read(TRANSACTIONS).read_all().schema == TRANSACTIONS.arrow_schema()


def test_the_same_rows_again_change_nothing_however_they_are_cut(local: DeltaLake) -> None:
    rows = transactions(days(5), 400)
    where = [partition(day) for day in days(5)]
    first = local.replace(TRANSACTIONS, rows, where)
    batches = pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches(max_chunksize=37))
    again = local.replace(TRANSACTIONS, batches, where)
    assert (again.version, again.rows, again.files) == (first.version, 2000, 0)
    changed = local.replace(TRANSACTIONS, transactions(days(5), 400, net="2"), where[:1] and where)
    assert changed.files == 5


def test_only_partitions_that_differ_are_written(local: DeltaLake) -> None:
    local.replace(TRANSACTIONS, transactions(days(4)), [partition(day) for day in days(4)])
    rows = pa.concat_tables([transactions(days(3)), transactions(days(4)[3:], net="7")])
    commit = local.replace(TRANSACTIONS, rows, [partition(day) for day in days(4)])
    assert (commit.rows, commit.files) == (12, 1)
    actions = local.history("transactions", 1)[0]["operationParameters"]
    assert actions["mode"] == "Append"


def test_rows_keep_their_order_within_a_partition(local: DeltaLake) -> None:
    each = 70_000
    rows = transactions(days(2), each)
    mixed = rows.take(pc.sort_indices(rows["line_id"]))  # the two days take turns
    local.replace(
        TRANSACTIONS,
        pa.RecordBatchReader.from_batches(mixed.schema, mixed.to_batches(max_chunksize=5000)),
        [partition(day) for day in days(2)],
    )
    for found in lines(local).values():
        assert found == sorted(found)
        assert len(found) == each


def test_every_contract_round_trips_exactly(lake: DeltaLake) -> None:
    for table in TABLES:
        rows = transactions(days(2), table=table, net="-12345678901234.5678")
        keys = pa.TableGroupBy(rows, list(table.partition_by)).aggregate([]).to_pylist()
        lake.replace(table, rows, keys)
        assert lake.read(table).read_all().equals(rows.sort_by([(name, "ascending") for name in table.partition_by]))
    assert lake.tables() == sorted(table.name for table in TABLES)


def test_instants_and_decimals_are_exact(local: DeltaLake) -> None:
    instant = datetime(2025, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC)
    rows = transactions(each=2)
    position = rows.schema.get_field_index("occurred_at")
    rows = rows.set_column(position, rows.schema.field(position), pa.array([instant] * 2, rows.schema.types[position]))
    position = rows.schema.get_field_index("net")
    amounts = [Decimal("99999999999999.9999"), Decimal("-0.0001")]
    rows = rows.set_column(position, rows.schema.field(position), pa.array(amounts, rows.schema.types[position]))
    local.replace(TRANSACTIONS, rows, [partition()])
    read = local.read(TRANSACTIONS, columns=["occurred_at", "net"]).read_all().to_pylist()
    assert read == [{"occurred_at": instant, "net": amount} for amount in amounts]


def changed(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    position = rows.schema.get_field_index(name)
    return rows.set_column(position, name, values)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda rows: rows.drop_columns(["net"]), r"missing \['net'\]"),
        (lambda rows: rows.append_column("extra", rows["net"]), r"unknown \['extra'\]"),
        (lambda rows: changed(rows, "net", pa.array([1.5, 2, 3])), "'net'.*double.*without loss"),
        (lambda rows: changed(rows, "net", pa.array([Decimal("1.23456")] * 3)), "'net'.*without loss"),
        (lambda rows: changed(rows, "net", pa.array([Decimal(10**14)] * 3, pa.decimal128(38, 4))), "'net'.*loss"),
        (lambda rows: changed(rows, "order_id", pa.array([1, 2, 3])), "'order_id'.*int64"),
        (lambda rows: changed(rows, "occurred_at", pa.array([datetime(2025, 3, 1)] * 3)), "'occurred_at'.*loss"),
        (lambda rows: changed(rows, "order_id", pa.array(["a", None, "c"])), "'order_id'.*required but empty in 1"),
        (lambda rows: changed(rows, "business_date", pa.array([date(2025, 4, 1)] * 3)), "2025-04-01, which is not"),
    ],
)
def test_rows_that_break_the_contract_are_refused(local: DeltaLake, broken, message: str) -> None:  # type: ignore[no-untyped-def]
    local.replace(TRANSACTIONS, transactions(), [partition()])
    with pytest.raises(ContractBrokenError, match=message):
        local.replace(TRANSACTIONS, broken(transactions()), [partition()])
    assert len(lines(local)[ACME, DAY]) == 3
    assert local.version("transactions") == 1


def test_types_that_fit_without_loss_are_taken(local: DeltaLake) -> None:
    rows = transactions()
    rows = changed(rows, "net", pa.array([Decimal(1), Decimal(2), Decimal("3.5")], pa.decimal128(38, 6)))
    rows = changed(rows, "order_id", pa.array(["a", "b", "a"]).dictionary_encode())
    rows = changed(rows, "tenant", pa.array(["t"] * 3, pa.large_string()))
    rows = changed(rows, "occurred_at", rows["occurred_at"].cast(pa.timestamp("us", "Europe/Paris")))
    local.replace(TRANSACTIONS, rows.select(rows.column_names[::-1]), [partition()])
    assert local.read(TRANSACTIONS).read_all()["net"].to_pylist() == [1, 2, Decimal("3.5")]


def test_a_partition_must_name_its_columns(local: DeltaLake) -> None:
    with pytest.raises(ValueError, match="connection"):
        local.replace(TRANSACTIONS, transactions(), [{"business_date": DAY}])


def test_four_hundred_partitions_in_one_commit(local: DeltaLake) -> None:
    many = days(400)
    started = time.process_time()
    commit = local.replace(TRANSACTIONS, transactions(many, 2), [partition(day) for day in many])
    assert (commit.version, commit.rows, commit.files) == (1, 800, 400)
    assert time.process_time() - started < 6
    assert local.replace(TRANSACTIONS, transactions(many, 2, net="2"), [partition(day) for day in many]).version == 2
    assert len(local.rows_by_partition("transactions")) == 400
    assert local.replace(TRANSACTIONS, transactions([]), [partition(day) for day in many[:399]]).version == 3
    assert list(lines(local)) == [(ACME, many[-1])]


def test_partitions_of_several_connections_at_once(local: DeltaLake) -> None:
    pairs = [(f"square:c{n}", day) for n in range(3) for day in days(4)][::2]
    rows = pa.concat_tables([transactions([day], 2, connection) for connection, day in pairs])
    local.replace(TRANSACTIONS, rows, [partition(day, connection) for connection, day in pairs])
    assert sorted(lines(local)) == sorted(pairs)


def test_an_earlier_version_can_be_read(lake: DeltaLake) -> None:
    lake.replace(TRANSACTIONS, transactions(each=2), [partition()])
    lake.replace(TRANSACTIONS, transactions(each=4), [partition()])
    assert lake.read(TRANSACTIONS, version=1).read_all().num_rows == 2
    assert lake.read(TRANSACTIONS).read_all().num_rows == 4
    assert [entry["version"] for entry in lake.history("transactions")] == [2, 1, 0]
    with pytest.raises(ConfigurationError, match=r"has no version 9.*newest is 2"):
        lake.read(TRANSACTIONS, version=9)


def test_reading_prunes_by_partition(local: DeltaLake) -> None:
    local.replace(TRANSACTIONS, transactions(days(6)), [partition(day) for day in days(6)])
    one = local.dataset("transactions", where={"business_date": days(6)[2]})
    two = local.dataset("transactions", where={"business_date": days(6)[2:4], "connection": ACME})
    assert one is not None
    assert two is not None
    assert [len(list(found.get_fragments())) for found in (one, two)] == [1, 2]
    assert list(lines(local, business_date=days(6)[5])) == [(ACME, days(6)[5])]
    with pytest.raises(ValueError, match="not a partition column"):
        local.dataset("transactions", where={"order_id": "x"})


def test_deltalake_itself_reads_and_counts_the_table(lake: DeltaLake) -> None:
    lake.replace(TRANSACTIONS, transactions(days(2)), [partition(day) for day in days(2)])
    opened = DeltaTable(lake.uri("transactions"), storage_options=lake._store.delta_options())
    assert opened.count() == 6
    assert opened.to_pyarrow_table().num_rows == 6
    assert opened.metadata().partition_columns == ["connection", "business_date"]
    configuration = opened.metadata().configuration
    assert configuration["delta.enableChangeDataFeed"] == "false"
    assert configuration["delta.logRetentionDuration"] == "interval 30 days"


def test_a_replacement_can_be_bound_to_a_version(local: DeltaLake) -> None:
    with pytest.raises(VersionChangedError):
        local.replace(TRANSACTIONS, transactions(), [partition()], if_version=3)
    local.replace(TRANSACTIONS, transactions(), [partition()], if_version=0)
    with pytest.raises(VersionChangedError):
        local.replace(TRANSACTIONS, transactions(each=9), [partition()], if_version=0)
    assert len(lines(local)[ACME, DAY]) == 3


def test_threads_that_make_one_table_at_the_same_moment_lose_nothing(lake: DeltaLake) -> None:
    def write(day: date) -> None:
        lake.replace(TRANSACTIONS, transactions([day]), [partition(day)])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, days(12)))
    assert {key[1]: len(value) for key, value in lines(lake).items()} == dict.fromkeys(days(12), 3)


REPLACER = """
import sys
from datetime import timedelta
from flux_pipelines.domain.tables import TRANSACTIONS
from flux_pipelines.lake import DeltaLake, object_store
from flux_pipelines_tests.lake.rows import days, partition, transactions
lake = DeltaLake(object_store(sys.argv[1]))
me, turns = int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for turn in range(turns):
    mine = days(20)[me::4] if me >= 0 else days(20)
    lake.replace(TRANSACTIONS, transactions(mine, 1 + turn % 7 + 10 * abs(me)), [partition(day) for day in mine])
"""


def replacers(root: Path | str, numbers: list[int], turns: int) -> list[subprocess.Popen[str]]:
    """Processes that begin at the same moment."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", REPLACER, str(root), str(n), str(turns)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in numbers
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return started


def test_a_table_that_another_process_makes_while_it_is_opened_is_not_damaged(
    lake: DeltaLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, look = DeltaLake(lake._store), lake._is_nothing_there

    def made_meanwhile(table: str) -> bool:
        other.replace(TRANSACTIONS, transactions(), [partition()])
        return look(table)

    monkeypatch.setattr(lake, "_is_nothing_there", made_meanwhile)
    lake.replace(TRANSACTIONS, transactions(days(2)), [partition(day) for day in days(2)])
    assert {key[1] for key in lines(other)} == set(days(2))


def test_four_processes_replace_different_partitions_and_nothing_is_lost(tmp_path: Path) -> None:
    turns = 7
    for process in replacers(tmp_path, [0, 1, 2, 3], turns):
        process.communicate(timeout=120)
        assert process.returncode == 0
    lake = DeltaLake(object_store(tmp_path))
    expected = {day: 1 + (turns - 1) % 7 + 10 * (n % 4) for n, day in enumerate(days(20))}
    assert {key[1]: len(value) for key, value in lines(lake).items()} == expected
    assert lake.version("transactions") == 4 * turns


def test_four_processes_replace_the_same_partitions_and_one_of_them_wins_whole(tmp_path: Path) -> None:
    for process in replacers(tmp_path, [-1, -2, -3, -4], 4):
        process.communicate(timeout=120)
        assert process.returncode == 0
    counts = {len(value) for value in lines(DeltaLake(object_store(tmp_path))).values()}
    assert len(counts) == 1
    assert counts.pop() in {10 * n + 4 for n in (1, 2, 3, 4)}


def test_kill_9_at_any_moment_leaves_a_whole_table(tmp_path: Path) -> None:
    for attempt in range(5):
        (process,) = replacers(tmp_path, [-1], 10_000)
        time.sleep(0.3 + 0.037 * attempt)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        counts = {key[1]: len(value) for key, value in lines(DeltaLake(object_store(tmp_path))).items()}
        assert list(counts) in ([], days(20))
        assert len(set(counts.values())) <= 1
    lake = DeltaLake(object_store(tmp_path))
    lake.replace(TRANSACTIONS, transactions(days(20), 2), [partition(day) for day in days(20)])
    assert set(map(len, lines(lake).values())) == {2}


def flooded(lake: DeltaLake, count: int) -> None:
    for n in range(count):
        lake.replace(TRANSACTIONS, transactions([days(30)[n % 30]], 1 + n), [partition(days(30)[n % 30])])


def test_many_commits_stay_fast_through_checkpoints(tmp_path: Path) -> None:
    lake = DeltaLake(object_store(tmp_path))
    flooded(lake, 45)
    log = tmp_path / "tables/transactions/_delta_log"
    assert [path.name for path in sorted(log.glob("*.checkpoint.parquet"))] == [
        f"{version:020}.checkpoint.parquet" for version in (20, 40)
    ]
    started = time.process_time()
    lake.replace(TRANSACTIONS, transactions(days(30), 160), [partition(day) for day in days(30)])
    assert time.process_time() - started < 1.5
    assert set(map(len, lines(lake).values())) == {160}


def test_maintenance_deletes_what_nothing_needs_and_nothing_else(lake: DeltaLake) -> None:
    flooded(lake, 6)
    before = lines(lake)
    lake.replace(TRANSACTIONS, transactions(days(6), 2), [partition(day) for day in days(6)])
    assert lake.maintain("transactions").files_deleted == 0
    done = lake.maintain("transactions", keep_hours=0)
    assert done.files_deleted >= 6
    assert lines(lake) == {key: ["000000", "000001"] for key in before}
    lake.replace(TRANSACTIONS, transactions(), [partition()])
    assert len(lines(lake)[ACME, DAY]) == 3
    with pytest.raises(ConfigurationError, match="no table 'nothing'"):
        lake.maintain("nothing")


def log_entry(root: Path, version: int, table: str = "transactions") -> Path:
    return root / f"tables/{table}/_delta_log/{version:020}.json"


def damage_garbage(root: Path) -> None:
    log_entry(root, 1).write_text("{garbage")


def damage_cut_off(root: Path) -> None:
    entry = log_entry(root, 2)
    entry.write_bytes(entry.read_bytes()[:200])


def damage_empty(root: Path) -> None:
    log_entry(root, 2).write_bytes(b"")


def damage_gap(root: Path) -> None:
    log_entry(root, 1).unlink()


def damage_no_log(root: Path) -> None:
    for path in (root / "tables/transactions/_delta_log").iterdir():
        path.unlink()
    (root / "tables/transactions/_delta_log").rmdir()


def damage_empty_log(root: Path) -> None:
    for path in (root / "tables/transactions/_delta_log").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    "damage", [damage_garbage, damage_cut_off, damage_empty, damage_gap, damage_no_log, damage_empty_log]
)
def test_a_table_that_cannot_be_opened_is_named_and_left_alone(local: DeltaLake, damage) -> None:  # type: ignore[no-untyped-def]
    local.replace(TRANSACTIONS, transactions(), [partition()])
    local.replace(TRANSACTIONS, transactions(each=2), [partition()])
    root = Path(local.root)
    damage(root)
    before = sorted(path for path in (root / "tables").rglob("*") if path.is_file())
    for use in (
        lambda: local.replace(TRANSACTIONS, transactions(), [partition()]),
        lambda: local.read(TRANSACTIONS).read_all(),
        lambda: local.exists("transactions"),
        lambda: local.version("transactions"),
    ):
        with pytest.raises(TableDamagedError, match=r"'transactions' cannot be read.*backup.*build it anew"):
            use()
    assert sorted(path for path in (root / "tables").rglob("*") if path.is_file()) == before


def test_a_creation_that_was_cut_short_is_not_damage(local: DeltaLake) -> None:
    (Path(local.root) / "tables/transactions/_delta_log").mkdir(parents=True)
    assert not local.exists("transactions")
    local.replace(TRANSACTIONS, transactions(), [partition()])
    assert len(lines(local)) == 1


def data_files(root: str | Path) -> list[Path]:
    return sorted(Path(root).glob("tables/transactions/*/*/*.parquet"))


def test_a_missing_or_damaged_data_file_is_named_and_a_rerun_repairs_it(local: DeltaLake) -> None:
    local.replace(TRANSACTIONS, transactions(days(2)), [partition(day) for day in days(2)])
    for harm in (
        lambda file: file.unlink(),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-20]),
        lambda file: file.write_bytes(b"X" * file.stat().st_size),
    ):
        harm(next(file for file in data_files(local.root) if "2025-03-01" in str(file) and file.stat().st_size > 1))
        with pytest.raises(TableDamagedError, match=r"'transactions' cannot be read.*backup"):
            local.read(TRANSACTIONS).read_all()
        assert len(lines(local, business_date=days(2)[1])) == 1
        repaired = local.replace(TRANSACTIONS, transactions(days(2)), [partition(day) for day in days(2)])
        assert repaired.files == 1
        assert set(map(len, lines(local).values())) == {3}
        local.maintain("transactions", keep_hours=0)


def test_a_full_disk_at_any_point_leaves_the_table_as_it_was(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "768k") as disk:
        lake = DeltaLake(object_store(disk))
        lake.replace(TRANSACTIONS, transactions(days(3), 2), [partition(day) for day in days(3)])
        rows = transactions(days(3), 50)
        outcomes = set()
        filler = disk / "filler"
        for free in (0, 4096, 8192, 16_384, 28_672, 36_864, 45_056, 57_344, 131_072):
            version, before = lake.version("transactions"), lines(lake)
            filler.write_bytes(b"")
            status = os.statvfs(disk)
            filler.write_bytes(b"0" * (status.f_bavail * status.f_frsize - free))
            try:
                commit = lake.replace(TRANSACTIONS, rows, [partition(day) for day in days(3)])
            except StorageFullError:
                outcomes.add("full")
                filler.unlink()
                assert (lake.version("transactions"), lines(lake)) == (version, before)
            else:
                outcomes.add("stored")
                filler.unlink()
                assert commit.rows == 150
                lake.replace(TRANSACTIONS, transactions(days(3), 2), [partition(day) for day in days(3)])
            lake.maintain("transactions", keep_hours=0)
        assert outcomes == {"full", "stored"}


def test_s3_out_of_reach_is_not_damage(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = DeltaLake(object_store("s3://flux-lake/reach"))
    lake.replace(TRANSACTIONS, transactions(), [partition()])
    with pytest.raises(ConfigurationError, match="NoSuchBucket"):
        DeltaLake(object_store("s3://no-such-bucket-here/x")).exists("transactions")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StorageUnavailableError, match="flux-lake/reach"):
        DeltaLake(object_store("s3://flux-lake/reach")).exists("transactions")


def endless(table: Table, day: date, count: int) -> Iterator[pa.RecordBatch]:
    base = transactions([day], 8192, table=table).to_batches()[0]
    for _ in range(count):
        yield base


def test_memory_stays_flat(tmp_path: Path) -> None:
    code = """
import resource, sys
import pyarrow as pa
from flux_pipelines.domain.tables import TRANSACTIONS
from flux_pipelines.lake import DeltaLake, object_store
from flux_pipelines_tests.lake.rows import DAY, partition
from flux_pipelines_tests.lake.test_delta import endless
lake = DeltaLake(object_store(sys.argv[1]))
peaks = []
for count in (12, 120):
    rows = pa.RecordBatchReader.from_batches(TRANSACTIONS.arrow_schema(), endless(TRANSACTIONS, DAY, count))
    commit = lake.replace(TRANSACTIONS, rows, [partition()])
    assert sum(batch.num_rows for batch in lake.read(TRANSACTIONS, columns=["line_id", "net"])) == commit.rows
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
print(commit.rows, peaks[1] - peaks[0])
"""
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True, timeout=200
    )
    rows, grown = map(int, run.stdout.split())
    assert rows == 983_040
    assert grown < 80, f"ten times the rows took {grown} MiB more"


def test_daily_tables_are_partitioned_by_one_column(local: DeltaLake) -> None:
    rows = transactions(days(3), 2, table=DAILY_SALES)
    local.replace(DAILY_SALES, rows, [{"business_date": day} for day in days(3)])
    commit = local.replace(DAILY_SALES, rows.slice(0, 1), [{"business_date": DAY.isoformat()}])
    assert commit.rows == 1
    assert local.rows_by_partition("daily_sales") == {
        (day.isoformat(),): count for day, count in zip(days(3), (1, 2, 2), strict=True)
    }
