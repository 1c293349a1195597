"""A provider's SQL that is wrong: the error names the file and the column, in one line, and no record is blamed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from flux_pipelines.defs.failures import PartitionsFailed, by_reason
from flux_pipelines.domain.errors import ContractBrokenError
from flux_pipelines.domain.tables import TRANSACTIONS
from flux_pipelines.providers.base import Provider
from flux_pipelines.providers.square import PROVIDER
from flux_pipelines.sync.normalise import Normalisation
from flux_pipelines_tests.sync.rawfiles import CONNECTION, DAY, land, raw_store

GOOD = PROVIDER.table(TRANSACTIONS.name).sql.read_text()


def with_sql(folder: Path, sql: str) -> Provider:
    """Square with another transactions.sql."""
    (folder / "transactions.sql").write_text(sql)
    tables = [
        replace(one, sql=folder / "transactions.sql") if one.table == TRANSACTIONS.name else one
        for one in PROVIDER.tables
    ]
    return replace(PROVIDER, tables=tuple(tables))


def last_select(columns: str) -> str:
    """The good SQL, with other columns of its result: `* EXCLUDE (tax)`."""
    *head, last = (statement.query.rstrip().removesuffix(";") for statement in duckdb.extract_statements(GOOD))
    return ";\n".join([*head, f"SELECT {columns} FROM ({last}\n)"])


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        (GOOD.replace("created_at AS occurred_at", "creatd_at AS occurred_at"), "creatd_at"),
        (last_select("* EXCLUDE (total)"), "it lacks total"),
        (last_select("* REPLACE (gross::DOUBLE AS gross)"), "money must be exact, and is not in gross"),
        ("CREATE TEMP TABLE orders_as_received (id VARCHAR, totl_money NOSUCHTYPE);\nSELECT 1", "NOSUCHTYPE"),
        ("SELEKT 1", "SELEKT"),
    ],
    ids=["misspelt", "lacking", "inexact", "definition", "syntax"],
)
def test_the_error_names_file_and_column_once(tmp_path: Path, sql: str, words: str) -> None:
    assert sql != GOOD
    raw = raw_store(tmp_path)
    work = Normalisation(with_sql(tmp_path, sql), raw, CONNECTION, [land(raw, [{"id": "1"}])])

    with pytest.raises(ContractBrokenError) as caught:
        list(work.batches())

    message = str(caught.value)
    assert message.startswith("square:test: square's transactions.sql cannot make transactions: ")
    assert message.count(words) == 1
    assert "\n" not in message
    assert work.bad == [], "no record is at fault"


def test_it_is_the_same_error_of_every_date_and_so_one_line(tmp_path: Path) -> None:
    raw = raw_store(tmp_path)
    provider, days = with_sql(tmp_path, last_select("* EXCLUDE (tax)")), [DAY + timedelta(days=n) for n in range(11)]
    failed = []
    for day in days:
        with pytest.raises(ContractBrokenError) as caught:
            list(Normalisation(provider, raw, CONNECTION, [land(raw, [{"id": "1"}], day)]).batches())
        failed.append(PartitionsFailed(CONNECTION.key, (day,), caught.value))

    (one,) = by_reason(failed)
    assert str(one).endswith(f"[square:test: 11 business dates, {days[0]} to {days[-1]}]")
