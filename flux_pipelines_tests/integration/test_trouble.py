"""What is wrong at the provider costs nothing that was there, and says what it is."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import httpx

from flux_pipelines.domain.money import from_minor
from flux_pipelines_tests.integration.conftest import END_DAY, Flux, truth
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox
from flux_sandbox.world import MALFORMED

ONE_DAY = ("--from", str(END_DAY), "--to", str(END_DAY))


def test_neither_an_unknown_zone_nor_a_lost_permission_is_a_day_without_sales(flux: Flux) -> None:
    with RunningSandbox(SandboxOptions(history_days=4, end_day=END_DAY)) as sandbox:

        def change(what: str, **details: object) -> None:
            httpx.post(f"{sandbox.url}/sandbox/{what}", json=details).raise_for_status()

        flux("connections", "add", "square:sakura", "--tenant", "kissa", "--sandbox", sandbox.url)
        flux("sync", "square", "--sales-only", *ONE_DAY)
        before = flux.contents()
        (row,) = flux.ask("select distinct location_id from transactions")
        change("locations/timezone", location_id=row["location_id"], timezone="Mars/Olympus")
        assert "Mars/Olympus" in flux.fails("sync", "square", "--sales-only", *ONE_DAY)
        assert flux.contents() == before

        change("locations/timezone", location_id=row["location_id"], timezone="Asia/Tokyo")
        change("tokens/scopes", merchant="sakura", remove=["ORDERS_READ"])
        assert "permission" in flux.fails("sync", "square", "--sales-only", *ONE_DAY)
        assert flux.contents() == before


def test_bad_orders_go_to_quarantine_whole_and_the_rest_of_the_day_is_there(flux: Flux) -> None:
    noon = datetime(END_DAY.year, END_DAY.month, END_DAY.day, 12, tzinfo=UTC)
    options = SandboxOptions(history_days=4, end_day=END_DAY, clock=lambda: noon, token_lifetime=2000 * 86400.0)
    with RunningSandbox(options) as sandbox:
        (sakura,) = sandbox.world.merchant("sakura").locations
        bad = {}
        for kind in MALFORMED:
            body = {"kind": kind, "location_id": sakura.id}
            made = httpx.post(f"{sandbox.url}/sandbox/orders/malformed", json=body).raise_for_status().json()
            bad[made["order_id"]] = kind
        flux("connections", "add", "square:sakura", "--tenant", "kissa", "--sandbox", sandbox.url)
        flux("sync", "square", "--sales-only", *ONE_DAY)
        records = [json.loads(line) for line in flux("quarantine", "list", "--payload").splitlines()]
        found = {kind for order_id, kind in bad.items() for record in records if order_id in record["payload"]}
        assert (len(records), found) == (len(MALFORMED), set(MALFORMED))
        assert {record["business_date"][:10] for record in records} == {str(END_DAY)}
        assert len({record["reason"] for record in records}) == len(MALFORMED), "each says what is wrong with it"
        (good,) = truth(sandbox, "sakura", END_DAY, END_DAY)["days"]
        (row,) = flux.ask("select orders, net from daily_sales")
        assert (row["orders"], Decimal(row["net"])) == (good["orders"], from_minor(good["net"], "JPY"))
        replayed = flux.run("quarantine", "replay")
        assert replayed.returncode == 1, "they are still bad"
        assert f"{len(MALFORMED)} stay" in replayed.stdout


def test_a_day_that_comes_back_empty_keeps_its_sales_until_somebody_accepts_it(flux: Flux) -> None:
    with RunningSandbox(SandboxOptions(history_days=4, end_day=END_DAY)) as sandbox:
        flux("connections", "add", "square:sakura", "--tenant", "kissa", "--sandbox", sandbox.url)
        flux("sync", "square", "--sales-only", *ONE_DAY)
        before, lines = flux.contents(), flux.ask("select * from square.transactions order by all")
        httpx.post(f"{sandbox.url}/sandbox/withhold", json={"merchant": "sakura"}).raise_for_status()
        told = " ".join(flux.fails("sync", "square", "--sales-only", *ONE_DAY).split())
        assert f"orders of {END_DAY} are stored, and the provider now says that there are none" in told
        assert flux.contents() == before
        flux("sync", "square", "--sales-only", *ONE_DAY, "--accept-empty")
        # What is accepted is that the date has no orders: single orders of the dates before, paid on it, are theirs.
        of_others = [line for line in lines if line["raw_date"] < str(END_DAY)]
        assert 0 < len(of_others) < len(lines)
        assert flux.ask("select * from square.transactions order by all") == of_others
