"""What each command says and how it ends, as a user meets it."""

from __future__ import annotations

import json

import pytest

from flux_pipelines_tests.integration.conftest import PIZZA, Flux
from flux_sandbox.server import RunningSandbox

pytestmark = pytest.mark.usefixtures("world")


def issue_token(world: RunningSandbox, merchant: str) -> str:
    import httpx

    answer = httpx.post(f"{world.url}/sandbox/tokens", json={"merchant": merchant})
    return str(answer.json()["access_token"])


def test_a_connection_lives_its_life(flux: Flux, world: RunningSandbox) -> None:
    added = flux("connections", "add", "square:sakura", "--tenant", "kissa", "--sandbox", world.url)
    assert "Asia/Tokyo" in added
    assert "JPY" in added
    (listed,) = json.loads(flux("connections", "list", "--json"))
    assert listed["connection"] == "square:sakura"
    assert listed["status"] == "active"
    assert "works" in flux("connections", "test", "square:sakura")
    flux("connections", "pause", "square:sakura")
    assert "paused" in flux.fails("connections", "test", "square:sakura")
    assert "no Square connection" in flux.fails("sync", "square", "--from", "2026-03-01", "--to", "2026-03-01")
    flux("connections", "resume", "square:sakura")
    assert "already" in flux.fails("connections", "add", "square:sakura", "--tenant", "x", "--sandbox", world.url)
    flux("connections", "remove", "square:sakura", "--yes")
    assert json.loads(flux("connections", "list", "--json")) == []
    assert "flux connections list" in flux.fails("connections", "pause", "square:sakura")


def test_secrets_come_from_standard_input_and_are_never_shown(flux: Flux, world: RunningSandbox) -> None:
    token = issue_token(world, "sakura")
    add = ("connections", "add", "square:tokyo", "--tenant", "k", "--settings", json.dumps({"base_url": world.url}))
    done = flux.run(*add, "--secrets", "-", stdin=json.dumps({"access_token": token}))
    assert done.returncode == 0, done.stderr
    assert token not in done.stdout + done.stderr
    (known,) = json.loads(flux("connections", "list", "--json"))
    assert known["account"].startswith("ML"), "webhooks name the account"
    twice = flux.fails(*add[:2], "square:twice", *add[3:], "--secrets", "-", stdin=json.dumps({"access_token": token}))
    assert "connected already, as square:tokyo" in twice
    wrong = flux.fails(
        *add[:2], "square:other", *add[3:], "--secrets", "-", stdin='{"access_token": "EAAA-not-a-token"}'
    )
    assert "square:other" in wrong
    assert "EAAA-not-a-token" not in wrong
    assert len(json.loads(flux("connections", "list", "--json"))) == 1, "nothing is kept of a connection that fails"


def test_a_connection_is_changed_or_stays_as_it_was(flux: Flux, world: RunningSandbox) -> None:
    flux("connections", "add", "square:sakura", "--tenant", "k", "--sandbox", world.url)
    change = ("connections", "configure", "square:sakura")
    saved = flux(*change, "--settings", '{"requests_per_minute": 300}')
    assert saved.startswith("square:sakura: settings saved.\n"), "a limit of our own says nothing of the provider"
    assert "square:sakura" in flux.fails(*change, "--settings", '{"base_url": "http://127.0.0.1:1"}')
    assert "square:sakura" in flux.fails(*change, "--secrets", "-", stdin='{"access_token": "EAAA-wrong"}')
    assert "works" in flux("connections", "test"), "what did not work was put back"
    token = issue_token(world, "sakura")
    assert "test passed" in flux(*change, "--secrets", "-", stdin=json.dumps({"access_token": token}))
    other = json.dumps({"access_token": issue_token(world, "harbor")})
    assert "another account" in flux.fails(*change, "--secrets", "-", stdin=other), "two books would become one"
    assert "works" in flux("connections", "test")


@pytest.mark.parametrize(
    ("settings", "secrets", "message"),
    [
        ('{"cutoff_hour": 24}', '{"access_token": "x"}', "cutoff_hour must be 0 to 23"),
        ('{"cutoff": 4}', '{"access_token": "x"}', "no setting 'cutoff'"),
        ('{"requests_per_minute": "many"}', '{"access_token": "x"}', "whole number"),
        ("{not json", '{"access_token": "x"}', "settings are not valid JSON"),
        ("{}", "hunter2 is not json", "secrets are not valid JSON"),
        ("{}", '{"client_id": "a"}', "not a complete way to authenticate"),
    ],
)
def test_wrong_settings_and_secrets_are_named_but_not_repeated(
    flux: Flux, settings: str, secrets: str, message: str
) -> None:
    said = flux.fails(
        "connections", "add", "square:acme", "--tenant", "t", "--settings", settings, "--secrets", "-", stdin=secrets
    )
    assert message in said
    assert "hunter2" not in said


def test_secrets_on_the_command_line_are_refused(flux: Flux) -> None:
    said = flux.fails("connections", "add", "square:acme", "--tenant", "t", "--secrets", '{"access_token": "s3cret"}')
    assert "standard input" in said
    assert "s3cret" not in said


def test_days_that_cannot_be_synced(flux: Flux, world: RunningSandbox) -> None:
    flux("connections", "add", "square:sakura", "--tenant", "kissa", "--sandbox", world.url)
    for first, last, message in (
        ("2026-03-02", "2026-03-01", "after"),
        ("yesterday", "2026-03-01", "not a date"),
        ("2025-12-31", "2026-03-01", "FLUX_START_DATE"),
        ("2026-03-01", "2199-01-01", "has not begun"),
    ):
        assert message in flux.fails("sync", "square", "--from", first, "--to", last)


def test_an_unknown_connection_or_provider_is_named(flux: Flux) -> None:
    days = ("--from", "2026-03-01", "--to", "2026-03-01")
    assert "'square:nobody'" in flux.fails("sync", "square", "--connection", "square:nobody", *days)
    assert "'quadrat'" in flux.fails("sync", "quadrat", *days)


def test_a_plan_tells_the_cost_before_it_is_paid(flux: Flux, world: RunningSandbox) -> None:
    flux("connections", "add", "square:harbor", "--tenant", "harbor", "--sandbox", world.url)
    said = flux("plan", "square", "--from", "2026-02-01", "--to", "2026-03-10")
    assert "square:harbor" in said
    assert "minutes" in said


def test_sql_only_reads(flux: Flux) -> None:
    assert flux("sql", "select count(*) as n from transactions", "--format", "csv") == "n\n0\n"
    for query in (
        "create table x as select 1",
        "copy (select 1) to '/tmp/flux-x.csv'",
        "select * from 'pyproject.toml'",
    ):
        assert "Error" in flux.fails("sql", query)
    assert "show all tables" in flux.fails("sql", "selekt 1")


def test_the_doctor_is_content_with_a_new_home_and_finds_a_revoked_connection(flux: Flux) -> None:
    import httpx

    from flux_sandbox.options import SandboxOptions

    assert "forecasts" in flux("doctor")
    with RunningSandbox(SandboxOptions(history_days=3)) as own:
        flux("connections", "add", "square:sakura", "--tenant", "kissa", "--sandbox", own.url)
        httpx.post(f"{own.url}/sandbox/tokens/revoke", json={"merchant": "sakura"}).raise_for_status()
        done = flux.run("doctor")
    assert done.returncode == 1
    assert "square:sakura" in done.stdout


def test_keys_rotate_online_and_a_wrong_key_is_explained(flux: Flux, world: RunningSandbox) -> None:
    flux("connections", "add", "square:sakura", "--tenant", "kissa", "--sandbox", world.url)
    before = (flux.home / "keys").read_text()
    assert "Encrypted" in flux("keys", "rotate")
    assert (flux.home / "keys").read_text() != before
    assert "works" in flux("connections", "test")
    key = flux("keys", "generate").strip()
    other = Flux(flux.home, FLUX_ENCRYPTION_KEYS=key)
    said = other.fails("connections", "test")
    assert "FLUX_ENCRYPTION_KEYS" in said
    assert key not in said


def test_production_needs_a_key(flux: Flux) -> None:
    assert "FLUX_ENCRYPTION_KEYS" in Flux(flux.home, FLUX_ENVIRONMENT="production").fails("connections", "list")


@pytest.mark.skipif(not PIZZA.exists(), reason="../shared is not there")
def test_a_malformed_dataset_is_refused_with_file_and_line(flux: Flux) -> None:
    folder = flux.home.parent / "orders"
    folder.mkdir()
    (folder / "items.csv").write_text("item_id,name,category,variation,price\na,A,C,S,1.00\n")
    (folder / "orders.csv").write_text("order_id,ordered_at,location,kind,source_order_id\n1,not-a-time,main,sale,\n")
    (folder / "lines.csv").write_text("order_id,line_id,item_id,quantity,unit_price\n1,1,a,1,1.00\n")
    said = flux.fails("sandbox", "--orders", str(folder), "--port", "0")
    assert "orders.csv" in said
    assert "2" in said
    assert "Known faults" in flux.fails("sandbox", "--faults", "gremlins=1", "--port", "0")
