"""An order whose business date changes after it has landed: it is on the new date alone, and the old one is empty if need be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

from flux_pipelines.connections import connect_to_sandbox
from flux_pipelines.defs.runner import sync
from flux_pipelines.lake import session
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import PROJECT_ROOT, settings
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

FOLDER = PROJECT_ROOT.parent / "shared" / "cases" / "toast"
KEY = "toast:harbor-kitchen"
OLD, NEW = date(2026, 8, 4), date(2026, 8, 5)

if not FOLDER.is_dir():
    pytest.skip("the shared cases are not here", allow_module_level=True)


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with RunningSandbox(SandboxOptions(history_days=2, end_day=date(2026, 11, 20))) as running:
        yield running


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    monkeypatch.setenv("FLUX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLUX_START_DATE", "2026-07-01")
    settings.cache_clear()
    with Runtime() as opened:
        yield opened


def give_out(sandbox: RunningSandbox, name: str) -> dict[str, Any]:
    (document,) = json.loads((FOLDER / f"{name}.json").read_text())
    restaurant = sandbox.world.merchant("harbor-kitchen").locations[0].id
    body = {"location_id": restaurant, "kind": "orders", "document": document}
    answer = httpx.post(f"{sandbox.url}/sandbox/documents", json=body)
    assert answer.is_success, answer.text
    found: dict[str, Any] = document
    return found


def forget(sandbox: RunningSandbox, guid: str) -> None:
    """Let the sandbox have the order no longer, so that a newer version can be given out in its place."""
    sale = sandbox.world.sales.pop(guid)
    sandbox.world.order_index[sale.location.id].drop(sale)
    documents = sandbox.world.merchant("harbor-kitchen").documents
    documents[:] = [one for one in documents if one.body is not sale.document]


def test_an_order_that_was_moved_is_on_its_new_date_alone(sandbox: RunningSandbox, runtime: Runtime) -> None:
    order = give_out(sandbox, "T50_moved_date_before")
    connect_to_sandbox(runtime, KEY, tenant="harbor", url=sandbox.url, merchant="harbor-kitchen")
    assert sync(runtime, [KEY], [OLD], beside_orders=False).failures == []
    forget(sandbox, order["guid"])
    give_out(sandbox, "T50_moved_date_after")
    sandbox.world.sales[order["guid"]].revision += 1  # what it wrote of the earlier version is not given out again
    assert sync(runtime, [KEY], [NEW], beside_orders=False).failures == []
    where = f"where order_id = '{order['guid']}'"
    with session(runtime.lake) as sql:
        for table in ("toast.transactions", "transactions"):
            found = sql.execute(f"select distinct raw_date, business_date from {table} {where}").fetchall()
            assert found == [(NEW, NEW)], table
        assert sql.execute("select business_date, sum(net) > 0 from daily_sales group by 1").fetchall() == [(NEW, True)]
    emptied = runtime.raw.read_manifest(KEY, OLD)
    assert emptied is not None
    assert (emptied.orders, emptied.verification.emptied_at) == (0, None)
    assert runtime.state.alerts.open() == []
