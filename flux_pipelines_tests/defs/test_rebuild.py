"""An upgrade of a home that an earlier version has filled: what was fetched is kept, and everything after it is made again."""

from __future__ import annotations

from datetime import timedelta
from typing import NoReturn

import pytest
from typer.testing import CliRunner

from flux_pipelines.cli import app
from flux_pipelines.defs.rebuild import rebuild
from flux_pipelines.defs.runner import sync
from flux_pipelines.domain import tables
from flux_pipelines.domain.errors import ConfigurationError, TableOutdatedError
from flux_pipelines.domain.tables import Table
from flux_pipelines.lake import session
from flux_pipelines_tests.defs.conftest import END_DAY, Home

#: What the tables lacked, and by what they were partitioned.
LACKED = ("raw_date", "marketplace_tax", "third_party", "due", "receivables", "deposits")
EARLIER = (
    "square/transactions",
    "square/payments",
    "transactions",
    "payments",
    "daily_sales",
    "tie_out",
    "settled_orders",
)
DAYS = [END_DAY - timedelta(days=1), END_DAY]


def as_it_was(home: Home, name: str) -> None:
    """Put the same rows in place of a table as an earlier version had it."""
    now = tables.named(name.rpartition("/")[2]).named(name)
    by = tuple(one for one in now.partition_by if one != "raw_date")
    columns = tuple(one for one in now if one.name not in LACKED)
    earlier = Table(now.name, now.grain, now.description, columns, now.key, by)
    lake = home.runtime.lake
    rows = lake.read(now).read_all().select([one.name for one in columns])
    lake.set_aside(name, f"elsewhere/{name}")
    partitions = {tuple(row.items()) for row in rows.select(list(by)).to_pylist()}
    lake.replace(earlier, rows, [dict(one) for one in partitions])


def cut_short(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def test_tables_of_an_earlier_version_are_made_again_from_what_was_fetched(changing_home: Home) -> None:
    home = changing_home
    keys = home.connect("harbor", "sakura")
    assert not sync(home.runtime, keys, DAYS).failures
    home.runtime.state.connections.remove(keys[0])  # what it had is history
    asked = ("transactions", "payments", "daily_sales", "tie_out", "square_transactions", "daily_item_demand")
    columns = {
        name: [c.name for c in tables.named(name.removeprefix("square_")) if c.name not in LACKED] for name in asked
    }

    def there() -> dict[str, object]:
        # What is due of an order nobody can tell of a connection that is gone, so that its balances may be others.
        kept = {"tie_out": f"where connection = '{keys[1]}'"}
        return {
            name: home.ask(f"select {', '.join(columns[name])} from {name} {kept.get(name, '')} order by all")
            for name in asked
        }

    before = there()
    for name in EARLIER:
        as_it_was(home, name)
    with pytest.raises(TableOutdatedError, match="flux rebuild"), session(home.runtime.lake, ["transactions"]):
        pass
    refused = CliRunner().invoke(app, ["up", "--sandbox"])
    assert isinstance(refused.exception, ConfigurationError)
    assert "flux rebuild" in str(refused.exception)

    home.runtime.state.audit.flush()
    calls = home.runtime.state.audit.totals()
    # Cut short right after the tables were set aside: they are no longer outdated, and they are not there.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flux_pipelines.defs.rebuild.driving", cut_short)
        with pytest.raises(KeyboardInterrupt):
            rebuild(home.runtime)
    assert home.runtime.lake.outdated() == []
    assert "flux rebuild" in str(CliRunner().invoke(app, ["up", "--sandbox"]).exception)
    names, days, failures = rebuild(home.runtime)
    assert (set(names), failures) == (set(EARLIER), [])
    assert set(DAYS) <= set(days)
    home.runtime.state.audit.flush()
    assert home.runtime.state.audit.totals() == calls, "no provider is asked"
    assert there() == before
    assert home.runtime.lake.outdated() == []
    assert rebuild(home.runtime) == ([], [], [])
