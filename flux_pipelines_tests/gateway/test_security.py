"""docs/security.md says what holds: every line names tests that exist. And two points that have no other home."""

from __future__ import annotations

import ast
import logging
import re
from functools import lru_cache
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from flux_pipelines.gateway.sessions import cookie_name
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import PROJECT_ROOT
from flux_pipelines_tests.gateway.issuer import CLIENT_ID, CLIENT_SECRET, Issuer
from flux_pipelines_tests.gateway.people import Browser, query_of

TESTS = PROJECT_ROOT / "flux_pipelines_tests"
LINES = re.findall(
    r"^\| (?!what holds|---)(.+?) \| ([\d., ]+) \| (.+) \|$", (PROJECT_ROOT / "docs/security.md").read_text(), re.M
)


@lru_cache
def _tests_of(file: Path) -> frozenset[str]:
    return frozenset(node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef))


def test_the_checklist_is_read() -> None:
    assert len(LINES) >= 70
    rows = [line for line in (PROJECT_ROOT / "docs/security.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) - sum(row.startswith("| what holds") for row in rows) == len(LINES)


@pytest.mark.parametrize(("what", "_", "tests"), LINES, ids=lambda value: str(value)[:60])
def test_every_line_names_tests_that_exist(what: str, _: str, tests: str) -> None:
    named = re.findall(r"`([\w/.]+)::(\w+)`", tests)
    assert named, f"{what}: no test is named"
    assert len(named) == tests.count("`") // 2
    for path, name in named:
        file = TESTS / path
        assert file.is_file(), f"{what}: there is no {path}"
        assert name.startswith("test_")
        assert name in _tests_of(file), f"{what}: {path} has no {name}"


@pytest.fixture
def issuer(httpserver: HTTPServer, runtime: Runtime) -> Issuer:
    issuer = Issuer(httpserver)
    secrets = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    runtime.state.apps.put("google", {"issuer": issuer.url}, secrets)
    return issuer


def _sign_in(browser: Browser, issuer: Issuer, **claims: object) -> int:
    asked = query_of(browser.get("/sign-in/google").headers["location"])
    issuer.token = issuer.sign(issuer.claims(asked["nonce"], **claims))
    return browser.get("/sign-in/google/callback", params={"state": asked["state"], "code": "c"}).status_code


def test_signing_in_gives_a_session_that_nobody_knew_before(browser: Browser, issuer: Issuer) -> None:
    """Fixation: an attacker who has put a session of theirs into the browser gains nothing by its signing in."""
    planted = "A" * 43
    name = cookie_name(browser.gateway.options)
    browser.cookies.set(name, planted, domain="127.0.0.1", path="/")

    assert _sign_in(browser, issuer) == 303

    assert len(browser.session) == 43
    assert browser.session != planted
    with Browser(browser.gateway) as attacker:
        attacker.cookies.set(name, planted, domain="127.0.0.1", path="/")
        assert attacker.get("/api/v1/me").status_code == 401
    # And signing in again, as somebody who was signed in already, ends the session before.
    first = browser.session
    assert _sign_in(browser, issuer, email="grace@example.com", sub="2") == 303
    with Browser(browser.gateway) as old:
        old.cookies.set(name, first, domain="127.0.0.1", path="/")
        assert old.get("/api/v1/me").status_code == 401
    assert browser.get("/api/v1/me").json()["name"] == "grace@example.com"


def test_what_matters_for_security_is_logged(
    browser: Browser, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="flux_pipelines.gateway")
    _sign_in(browser, issuer, email="eve@evil.example")
    browser.get("/sign-in/google/callback", params={"state": "A" * 43, "code": "c"})
    _sign_in(browser, issuer)
    browser.post("/sign-out", data={"csrf": "wrong"}, headers={"origin": browser.gateway.url})
    browser.post("/sign-out", data={"csrf": "wrong"}, headers={"origin": "https://evil.example"})
    browser.get("/api/v1/me", headers={"authorization": "Bearer flux_wrong"})
    browser.submit("/sign-out")

    said = [record.getMessage() for record in caplog.records if record.name == "flux_pipelines.gateway"]
    assert said == [
        "sign-in with google refused: eve@evil.example may not sign in here",
        "sign-in with google refused: unknown",
        "ada@example.com signed in as google:1234567890",
        "refused POST /sign-out: no proof that the form is of this session",
        "refused POST /sign-out: from another site",
        "refused GET /api/v1/me: the API token is not valid",
        "ada@example.com signed out",
    ]


def test_a_stranger_cannot_write_lines_of_the_log(browser: Browser, caplog: pytest.LogCaptureFixture) -> None:
    for path in (
        "/sign-in/google%0Aada@example.com%20signed%20in/callback",
        "/sign-in/x%0D%0A%1b[2J%E2%80%A8/callback",
    ):
        browser.get(path, params={"state": "A" * 43, "code": "c"})
    browser.get("/api/v1/%0Aforged", headers={"authorization": "Bearer wrong"})

    said = [record.getMessage() for record in caplog.records if record.name == "flux_pipelines.gateway"]
    assert len(said) >= 2
    assert all(line.isprintable() for line in said)
