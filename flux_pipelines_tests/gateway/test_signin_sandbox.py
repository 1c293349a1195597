"""Signing in with Google and GitHub as the sandbox plays them: PKCE and secrets checked, errors as each documents them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import httpx
import pytest

from flux_pipelines.gateway.app import SIGN_INS_A_MINUTE
from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.gateway.throttle import Throttle
from flux_pipelines.runtime import Runtime
from flux_pipelines_tests.gateway.people import Browser, query_of
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

WAYS = ("google", "github")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with RunningSandbox(SandboxOptions(history_days=2, end_day=date(2026, 11, 2))) as running:
        yield running


@pytest.fixture(scope="module")
def apps(sandbox: RunningSandbox) -> dict[str, dict[str, dict[str, str]]]:
    found: dict[str, dict[str, dict[str, str]]] = httpx.get(f"{sandbox.url}/sandbox/app", trust_env=False).json()[
        "apps"
    ]
    return found


@pytest.fixture(autouse=True)
def registered(runtime: Runtime, gateway: RunningGateway, apps: dict[str, dict[str, dict[str, str]]]) -> None:
    for name in WAYS:
        runtime.state.apps.put(name, apps[name]["settings"], apps[name]["secrets"])
    gateway.app.state.sign_ins = Throttle(SIGN_INS_A_MINUTE)


def begin(browser: Browser, way: str) -> str:
    answer = browser.get(f"/sign-in/{way}")
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def consent(url: str, **choice: str) -> str:
    """Choose a person at the provider, or deny; return where the browser is sent."""
    answer = httpx.get(url, params={**query_of(url), **choice}, trust_env=False)
    assert answer.is_redirect, answer.text
    return answer.headers["location"]


def whoever(browser: Browser) -> str | None:
    answer = browser.get("/api/v1/me")
    return answer.json()["name"] if answer.status_code == 200 else None


@pytest.mark.parametrize("way", WAYS)
def test_who_is_on_the_list_signs_in(browser: Browser, runtime: Runtime, way: str) -> None:
    back = browser.get(consent(begin(browser, way), person="ada"))

    assert (back.status_code, back.headers["location"]) == (303, "/")
    assert whoever(browser) == "ada@example.com"
    person = runtime.state.people.find(browser.session)
    assert person is not None
    assert person.subject == {"google": "google:1" + "5810001".zfill(20), "github": "github:5810001"}[way]
    assert person.name == "Ada Lovelace"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("who", "said"),
    [("mallory", "may not sign in here"), ("henry", "may not sign in here"), ("unverified", "not verified")],
)
def test_strangers_and_unverified_addresses_stay_out(browser: Browser, way: str, who: str, said: str) -> None:
    answer = browser.get(consent(begin(browser, way), person=who))

    assert answer.status_code == 403
    assert said in answer.text
    assert whoever(browser) is None


@pytest.mark.parametrize("way", WAYS)
def test_denial_is_said(browser: Browser, way: str) -> None:
    answer = browser.get(consent(begin(browser, way), deny="1"))

    assert answer.status_code == 403
    assert "was cancelled" in answer.text
    assert whoever(browser) is None


@pytest.mark.parametrize("way", WAYS)
def test_a_code_of_another_round_trip_is_worthless(browser: Browser, way: str) -> None:
    """The provider finds the verifier wrong: PKCE."""
    with Browser(browser.gateway) as attacker:
        stolen = query_of(consent(begin(attacker, way), person="ada"))["code"]
    mine = query_of(begin(browser, way))["state"]

    answer = browser.get(f"/sign-in/{way}/callback", params={"state": mine, "code": stolen})

    assert answer.status_code == 403
    assert ("invalid_grant" if way == "google" else "bad_verification_code") in answer.text
    assert whoever(browser) is None


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_client_secret_is_said_without_repeating_it(
    browser: Browser, runtime: Runtime, apps: dict[str, dict[str, dict[str, str]]], way: str
) -> None:
    wrong = {**apps[way]["secrets"], "client_secret": "not-the-right-secret"}
    runtime.state.apps.put(way, apps[way]["settings"], wrong)  # and is taken over without a restart

    answer = browser.get(consent(begin(browser, way), person="ada"))

    assert answer.status_code == 403
    assert ("invalid_client" if way == "google" else "incorrect_client_credentials") in answer.text
    assert "not-the-right-secret" not in answer.text
    assert whoever(browser) is None


@pytest.mark.parametrize(("domain", "status"), [("example.com", 303), ("example.org", 403)])
def test_only_one_workspace_is_admitted_when_it_is_named(
    browser: Browser, runtime: Runtime, apps: dict[str, dict[str, dict[str, str]]], domain: str, status: int
) -> None:
    settings = {**apps["google"]["settings"], "hosted_domain": domain}
    runtime.state.apps.put("google", settings, apps["google"]["secrets"])

    assert browser.get(consent(begin(browser, "google"), person="ada")).status_code == status


def test_a_rotated_signing_key_of_the_issuer_is_found(browser: Browser, sandbox: RunningSandbox) -> None:
    assert browser.get(consent(begin(browser, "google"), person="ada")).status_code == 303
    rotated = httpx.post(f"{sandbox.url}/sandbox/identity/rotate", json={}, trust_env=False)
    assert rotated.status_code == 200

    with Browser(browser.gateway) as another:
        assert another.get(consent(begin(another, "google"), person="grace")).status_code == 303
        assert whoever(another) == "grace@example.com"


@pytest.mark.parametrize("way", WAYS)
def test_a_provider_that_is_away_is_said(browser: Browser, runtime: Runtime, way: str) -> None:
    secrets = {"client_id": "x", "client_secret": "secret-of-x"}
    nowhere = "http://127.0.0.1:9"
    where = {"issuer": nowhere} if way == "google" else {"base_url": nowhere, "api_url": nowhere}
    runtime.state.apps.put(way, where, secrets)
    answer = browser.get(f"/sign-in/{way}")
    if way == "github":  # nothing has to be asked before the browser is sent there
        state = query_of(answer.headers["location"])["state"]
        answer = browser.get("/sign-in/github/callback", params={"state": state, "code": "x"})

    assert answer.status_code == 502
    assert whoever(browser) is None
