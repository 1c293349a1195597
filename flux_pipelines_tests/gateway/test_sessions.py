"""Sessions: what the browser holds, when they end, and that nobody can choose or keep one (ASVS V3)."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import httpx
import time_machine
from starlette.responses import Response

from flux_pipelines.gateway.options import AllowedPeople, GatewayOptions
from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.gateway.sessions import cookie_name, set_session
from flux_pipelines.runtime import Runtime
from flux_pipelines_tests.gateway.people import Browser


def works(browser: Browser) -> bool:
    return browser.get("/api/v1/me").status_code == 200


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(gateway: RunningGateway, runtime: Runtime) -> None:
    runtime.state.apps.put(
        "github", {"base_url": "https://github.com"}, {"client_id": "x", "client_secret": "secret-of-x"}
    )
    with Browser(gateway) as browser:
        cookie = browser.get("/sign-in/github").headers["set-cookie"]

    parts = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert cookie.startswith("flux_session=")
    assert {"httponly", "samesite=lax", "path=/"} <= parts
    # It ends with the browser, and no other host gets it.
    assert not any(part.startswith(("domain", "max-age", "expires")) for part in parts)


def test_behind_tls_the_cookie_is_secure_and_of_this_host_only() -> None:
    options = GatewayOptions(public_url="https://flux.example.com", allowed_people=AllowedPeople())
    response = Response()
    set_session(response, options, "token")

    cookie = response.headers["set-cookie"]
    assert cookie_name(options) == "__Host-flux"
    assert cookie.startswith("__Host-flux=token;")
    assert {"secure", "httponly", "path=/", "samesite=lax"} == {part.strip().lower() for part in cookie.split(";")[1:]}


def test_a_token_has_256_random_bits_and_only_its_hash_is_stored(ada: Browser, runtime: Runtime) -> None:
    tokens = {runtime.state.people.sign_in("google:x", "x@example.org", "X") for _ in range(100)}
    assert len(tokens) == 100
    assert all(len(token) == 43 for token in tokens)  # 32 bytes in base64url

    stored = b"".join(file.read_bytes() for file in runtime.settings.home.glob("state.db*"))
    assert hashlib.sha256(ada.session.encode()).hexdigest().encode() in stored
    assert ada.session.encode() not in stored


def test_a_session_in_the_url_is_no_session(gateway: RunningGateway, ada: Browser) -> None:
    name = cookie_name(gateway.options)
    answer = httpx.get(f"{gateway.url}/api/v1/me?{name}={ada.session}&session={ada.session}", trust_env=False)

    assert answer.status_code == 401


def test_a_session_that_the_browser_invents_is_no_session(gateway: RunningGateway) -> None:
    for token in ("", "x", "A" * 43, "A" * 8000, "é", "a;b", "%00"):
        headers = {"cookie": f"{cookie_name(gateway.options)}={token}".encode("latin-1")}
        assert httpx.get(f"{gateway.url}/api/v1/me", headers=headers, trust_env=False).status_code == 401


def test_of_two_cookies_of_one_name_none_gets_in_by_being_second(gateway: RunningGateway, ada: Browser) -> None:
    """A cookie that another host of the domain has set must not shadow ours into somebody else's session."""
    name = cookie_name(gateway.options)
    headers = {"cookie": f"{name}={ada.session}; {name}=forged"}
    assert httpx.get(f"{gateway.url}/api/v1/me", headers=headers, trust_env=False).status_code == 401


def test_signing_out_ends_the_session_on_the_server(ada: Browser) -> None:
    kept = ada.session
    answer = ada.submit("/sign-out")

    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert ada.session == ""
    with Browser(ada.gateway) as thief:
        thief.cookies.set(cookie_name(ada.gateway.options), kept, domain="127.0.0.1", path="/")
        assert not works(thief)


def test_signing_out_everywhere_ends_every_session_of_the_person_and_no_other(
    ada: Browser, gateway: RunningGateway
) -> None:
    with Browser(gateway) as phone, Browser(gateway) as grace:
        phone.sign_in_as("google:ada", "ada@example.com", "Ada")
        grace.sign_in_as("google:grace", "grace@example.com", "Grace")
        assert works(phone)

        assert ada.submit("/sign-out-everywhere").status_code == 303

        assert not works(ada)
        assert not works(phone)
        assert works(grace)


def test_a_session_ends_when_nothing_is_done(ada: Browser) -> None:
    idle = timedelta(minutes=ada.gateway.options.session_idle_minutes)
    with time_machine.travel(datetime.now(UTC) + idle - timedelta(minutes=1)):
        assert works(ada)  # and is seen again
    with time_machine.travel(datetime.now(UTC) + 2 * idle - timedelta(minutes=5)):
        assert works(ada)
    with time_machine.travel(datetime.now(UTC) + 3 * idle):
        assert not works(ada)


def test_a_session_ends_after_a_week_however_busy(ada: Browser) -> None:
    for hour in range(0, 7 * 24, 11):
        with time_machine.travel(datetime.now(UTC) + timedelta(hours=hour)):
            assert works(ada), hour
    with time_machine.travel(datetime.now(UTC) + timedelta(days=7, seconds=1)):
        assert not works(ada)


def test_who_is_taken_off_the_list_is_out_at_once(runtime: Runtime) -> None:
    only_grace = AllowedPeople.parse("grace@example.com")
    with RunningGateway(runtime, allowed_people=only_grace) as stricter, Browser(stricter) as ada:
        ada.sign_in_as("google:ada", "ada@example.com", "Ada")
        assert not works(ada)
        assert ada.get("/connections").headers["location"].startswith("/sign-in")


def test_the_idle_time_is_a_setting(runtime: Runtime) -> None:
    with RunningGateway(runtime, session_idle_minutes=5) as running, Browser(running) as ada:
        ada.sign_in_as("google:ada", "ada@example.com", "Ada")
        with time_machine.travel(datetime.now(UTC) + timedelta(minutes=6)):
            assert not works(ada)


def test_a_page_without_a_session_leads_to_the_sign_in_page_and_back(browser: Browser) -> None:
    answer = browser.get("/connections?status=paused&x=%2F")

    assert answer.status_code == 303
    assert answer.headers["location"] == "/sign-in?return_to=%2Fconnections%3Fstatus%3Dpaused%26x%3D%252F"


def test_a_form_without_a_session_is_not_repeated_after_sign_in(browser: Browser) -> None:
    answer = browser.post("/sign-out", data={"csrf": "x"}, headers={"origin": browser.gateway.url})

    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
