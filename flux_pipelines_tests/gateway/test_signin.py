"""Signing in through a provider that we did not write (oidc-provider-mock), and every way in which it must not succeed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import time_machine

from flux_pipelines.gateway.app import SIGN_INS_A_MINUTE
from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.gateway.throttle import Throttle
from flux_pipelines.runtime import Runtime
from flux_pipelines_tests.gateway.people import Browser, query_of

SECRET = "the-apps-own-secret"


@pytest.fixture(scope="module")
def openid() -> Iterator[str]:
    """The URL of an OpenID provider with people who may and may not sign in."""
    mock = pytest.importorskip("oidc_provider_mock", reason="oidc-provider-mock is not installed")
    from oidc_provider_mock._storage import User

    def user(sub: str, email: str, verified: bool = True) -> User:
        return User(sub=sub, claims={"email": email, "email_verified": verified, "name": sub.title()})

    people = (
        user("ada", "Ada@Example.com"),
        user("linus", "linus@example.org"),
        user("eve", "eve@evil.example"),
        user("mallory", "ada@example.com", verified=False),
        user("sub", "x@mail.example.org"),
    )
    with mock.run_server_in_thread(user_claims=people) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture(scope="module", autouse=True)
def registered(runtime: Runtime, openid: str) -> None:
    runtime.state.apps.put("google", {"issuer": openid}, {"client_id": "flux", "client_secret": SECRET})


@pytest.fixture(autouse=True)
def unhurried(gateway: RunningGateway) -> None:
    """Every test begins with a fresh minute of sign-ins."""
    gateway.app.state.sign_ins = Throttle(SIGN_INS_A_MINUTE)


def begin(browser: Browser, return_to: str = "/") -> str:
    """Choose the provider on the sign-in page; return the URL of its consent page."""
    answer = browser.get("/sign-in/google", params={"return_to": return_to})
    assert answer.status_code == 303
    return answer.headers["location"]


def consent(url: str, sub: str) -> str:
    """Sign in at the provider as somebody; return the URL that it sends the browser back to."""
    answer = httpx.post(url, data={"sub": sub}, trust_env=False)
    assert answer.status_code == 302, answer.text
    return answer.headers["location"]


def sign_in(browser: Browser, sub: str, return_to: str = "/") -> httpx.Response:
    return browser.get(consent(begin(browser, return_to), sub))


def whoever(browser: Browser) -> str | None:
    """The address that the machine endpoint sees, or None."""
    answer = browser.get("/api/v1/me")
    return answer.json()["name"] if answer.status_code == 200 else None


def test_the_page_names_the_ways_and_the_whole_round_trip_signs_in(browser: Browser) -> None:
    page = browser.get("/sign-in", params={"return_to": "/connections?x=1"})
    assert 'href="/sign-in/google?return_to=/connections%3Fx%3D1"' in page.text
    assert whoever(browser) is None

    back = sign_in(browser, "ada", "/connections?x=1")

    assert (back.status_code, back.headers["location"]) == (303, "/connections?x=1")
    assert whoever(browser) == "Ada@Example.com"
    assert browser.get("/sign-in").status_code == 303  # there is nothing more to do there


def test_the_redirect_uri_is_exactly_ours_and_the_url_carries_no_secret(browser: Browser) -> None:
    url = begin(browser)

    asked = query_of(url)
    assert asked["redirect_uri"] == f"{browser.gateway.url}/sign-in/google/callback"
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["state"]) >= 43
    assert len(asked["nonce"]) >= 43
    assert SECRET not in url
    assert browser.session not in url


def test_two_sign_ins_share_nothing(browser: Browser) -> None:
    one, two = query_of(begin(browser)), query_of(begin(browser))

    for name in ("state", "nonce", "code_challenge"):
        assert one[name] != two[name]


def test_a_domain_on_the_list_admits_its_people(browser: Browser) -> None:
    sign_in(browser, "linus")

    assert whoever(browser) == "linus@example.org"


@pytest.mark.parametrize(
    ("sub", "said"),
    [("eve", "may not sign in here"), ("sub", "may not sign in here"), ("mallory", "has not verified")],
)
def test_who_is_not_on_the_list_or_not_verified_stays_out(browser: Browser, sub: str, said: str) -> None:
    answer = sign_in(browser, sub)

    assert answer.status_code == 403
    assert said in answer.text
    assert whoever(browser) is None


def test_denial_is_said_and_leads_back_to_the_start(browser: Browser) -> None:
    url = begin(browser)
    denied = httpx.post(url, data={"action": "deny"}, trust_env=False).headers["location"]
    assert query_of(denied)["error"] == "access_denied"

    # This provider forgets the state when it says no, which RFC 6749 (4.1.2.1) asks for.
    answer = browser.get(denied, params={"error": "access_denied", "state": query_of(url)["state"]})

    assert answer.status_code == 403
    assert "was cancelled" in answer.text
    assert whoever(browser) is None
    # The state is used up, even so.
    again = browser.get("/sign-in/google/callback", params={"state": query_of(url)["state"], "code": "x"})
    assert again.status_code == 400


# --- state: random, once, soon, and of this browser ---


def test_a_callback_works_once(browser: Browser) -> None:
    back = consent(begin(browser), "ada")
    assert browser.get(back).status_code == 303
    with Browser(browser.gateway) as thief:
        thief.cookies = browser.cookies
        assert thief.get(back).status_code == 400


def test_of_many_at_once_one_callback_wins(browser: Browser) -> None:
    back = consent(begin(browser), "ada")
    cookies = {"flux_session": browser.session}

    def go(_: int) -> int:
        return httpx.get(back, cookies=cookies, trust_env=False).status_code

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(go, range(8)))
    assert answers == [303] + [400] * 7


def test_a_callback_of_another_session_is_refused_and_used_up(browser: Browser) -> None:
    back = consent(begin(browser), "ada")
    with Browser(browser.gateway) as victim:
        # The classic: an attacker's finished round trip, given to somebody else as a link.
        assert victim.get(back).status_code == 400
        assert whoever(victim) is None
        begin(victim)
        assert victim.get(back).status_code == 400
        assert whoever(victim) is None
    assert browser.get(back).status_code == 400


@pytest.mark.parametrize("state", [None, "", "x", "A" * 43, "A" * 5000, "\x00", "é"])
def test_a_state_that_was_never_given_is_refused(browser: Browser, state: str | None) -> None:
    begin(browser)
    query = {"code": "abc"} | ({} if state is None else {"state": state})

    answer = browser.get("/sign-in/google/callback", params=query)

    assert answer.status_code == 400
    assert whoever(browser) is None


def test_a_state_expires_after_ten_minutes(browser: Browser) -> None:
    back = consent(begin(browser), "ada")

    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=10, seconds=1)):
        assert browser.get(back).status_code == 400
        assert whoever(browser) is None


def test_a_state_of_another_provider_is_refused(browser: Browser) -> None:
    back = consent(begin(browser), "ada").replace("/sign-in/google/", "/sign-in/github/")

    assert browser.get(back).status_code == 400


def test_the_refusal_does_not_tell_an_attacker_which_it_was(browser: Browser) -> None:
    unknown = browser.get("/sign-in/google/callback", params={"state": "A" * 43, "code": "x"})
    back = consent(begin(browser), "ada")
    with Browser(browser.gateway) as other:
        stolen = other.get(back)
        used = other.get(back)

    assert unknown.text == stolen.text == used.text
    assert unknown.status_code == stolen.status_code == used.status_code == 400


def test_a_code_of_somebody_elses_round_trip_is_refused_by_its_nonce(browser: Browser) -> None:
    """The provider here does not check PKCE, so that what stops an injected code is the nonce alone."""
    with Browser(browser.gateway) as attacker:
        stolen = query_of(consent(begin(attacker), "ada"))["code"]
    mine = query_of(begin(browser))["state"]

    answer = browser.get("/sign-in/google/callback", params={"state": mine, "code": stolen})

    assert answer.status_code == 403
    assert "another sign-in" in answer.text
    assert whoever(browser) is None


def test_a_code_works_once(browser: Browser) -> None:
    code = query_of(consent(begin(browser), "ada"))["code"]
    state = query_of(begin(browser))["state"]
    first = browser.get("/sign-in/google/callback", params={"state": state, "code": code})
    state = query_of(begin(browser))["state"]
    second = browser.get("/sign-in/google/callback", params={"state": state, "code": code})

    assert "another sign-in" in first.text  # the nonce
    assert "invalid_grant" in second.text
    assert whoever(browser) is None


# --- what strangers may make the gateway do ---


def test_a_sign_in_begun_by_another_site_is_not_begun(browser: Browser) -> None:
    for site in ("cross-site", "same-site"):
        answer = browser.get("/sign-in/google", headers={"sec-fetch-site": site})
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert browser.session == ""


def test_a_stranger_cannot_begin_sign_ins_without_end(browser: Browser) -> None:
    for _ in range(SIGN_INS_A_MINUTE):
        assert browser.get("/sign-in/google").status_code == 303

    answer = browser.get("/sign-in/google")

    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "60"


def test_the_memory_of_the_throttle_is_bounded() -> None:
    throttle = Throttle(1, most_addresses=3)
    assert [throttle.passes(key) for key in ("a", "a", "b", "c", "d")] == [True, False, True, True, True]
    assert throttle.passes("a")  # forgotten, the price of flat memory


def test_an_ipv6_subscriber_is_one_stranger_however_many_addresses_it_has() -> None:
    throttle = Throttle(1)
    hosts = (
        "2001:db8::1",
        "2001:db8::ffff:2",
        "2001:db8:0:1::1",
        "::ffff:192.0.2.1",
        "192.0.2.1",
        "192.0.2.2",
        "unknown",
    )
    assert [throttle.passes(host) for host in hosts] == [True, False, True, True, False, True, True]


@pytest.mark.parametrize("provider", ["github", "square", "nobody", "..%2f..", "google%00"])
def test_a_provider_that_is_not_registered_cannot_be_used(browser: Browser, provider: str) -> None:
    answer = browser.get(f"/sign-in/{provider}")

    assert answer.status_code in (404, 409)
    assert browser.session == ""


def test_secrets_of_a_sign_in_are_in_no_log(browser: Browser, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = begin(browser)
    anonymous = browser.session
    back = consent(url, "ada")
    browser.get(back)
    # The test's own client and the provider's server are not ours.
    ours = "\n".join(
        record.getMessage()
        for record in caplog.records
        if record.name.startswith(("flux_pipelines", "uvicorn", "sqlalchemy"))
    )

    assert "signed in" in ours
    for secret in (query_of(back)["code"], query_of(back)["state"], query_of(url)["nonce"], anonymous, browser.session):
        assert secret not in ours


def test_nothing_of_a_sign_in_is_readable_in_the_database(browser: Browser, runtime: Runtime) -> None:
    url = begin(browser)
    anonymous, asked = browser.session, query_of(url)
    browser.get(consent(url, "ada"))
    path = runtime.settings.home / "state.db"
    stored = b"".join(file.read_bytes() for file in path.parent.glob("state.db*"))

    assert b"ada@example.com" in stored.lower()  # this does read what is stored
    for secret in (asked["state"], asked["nonce"], anonymous, browser.session, SECRET):
        assert secret.encode() not in stored
