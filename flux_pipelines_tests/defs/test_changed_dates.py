"""Dates that rows of other raw partitions count on are told, also by a step that died before it could."""

from __future__ import annotations

from datetime import timedelta

from flux_pipelines.defs import names
from flux_pipelines.defs.assets.normalized import normalizing
from flux_pipelines.domain.partition import Partition
from flux_pipelines.domain.tables import TRANSACTIONS
from flux_pipelines.providers.square import PROVIDER
from flux_pipelines_tests.defs.conftest import END_DAY, Home

KEY = "square:harbor"
BEFORE = END_DAY - timedelta(days=1)
LINES, RAW = names.provider_transactions("square"), names.raw_orders("square")


def test_what_a_dead_step_has_written_is_told_by_the_next_one(home: Home) -> None:
    home.connect("harbor")
    assert home.run("sync_square", *both(), asset_selection=[RAW]).success
    # A step whose process ends between its commit and what it would have said of it.
    dead = normalizing(home.runtime, PROVIDER, PROVIDER.table("transactions"), "dead", checked=False)
    dead.run({KEY: [BEFORE, END_DAY]})
    table = TRANSACTIONS.named("square/transactions").name
    one, two = str(BEFORE), str(END_DAY)
    rows = home.runtime.lake.rows_by_partition(table, {"connection": KEY})
    assert rows[KEY, one, two] > 0, "tabs that were paid after midnight"
    version = home.runtime.lake.version(table)

    # The next one finds every row as it would make it, and says all the same what has changed.
    result = home.run("sync_square", *[str(Partition(KEY, BEFORE))] * 2, asset_selection=[LINES])
    assert result.success
    assert home.runtime.lake.version(table) == version
    told = home.recorded(result.run_id)
    assert {f"{KEY}|{one}", f"{KEY}|{two}"} <= told
    waiting = [name for name in home.runtime.state.cursors.of(KEY) if name.startswith("touching/")]
    assert waiting == [f"touching/{table}/{KEY}/dead"], "it may live still, and is told again until it cannot"


def test_a_step_that_has_told_leaves_nothing_written_down(home: Home) -> None:
    home.connect("harbor")
    assert home.run("sync_square", *both()).success
    assert [name for name in home.runtime.state.cursors.of(KEY) if name.startswith("touching/")] == []


def both() -> tuple[str, str]:
    return str(Partition(KEY, BEFORE)), str(Partition(KEY, END_DAY))
