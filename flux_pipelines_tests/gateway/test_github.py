"""GitHub's sign-in where it differs from what the sandbox's GitHub does when asked nicely: every answer it documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from flux_pipelines.domain.errors import ConfigurationError, SignInRefusedError
from flux_pipelines.gateway.github import GitHub
from flux_pipelines.gateway.identity import Identity, RoundTrip
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines.state.credentials.apps import App
from flux_pipelines_tests.gateway.people import query_of

TRIP = RoundTrip("http://127.0.0.1:8410/sign-in/github/callback", "v" * 64, "")
SECRETS = {"client_id": "Iv1.client", "client_secret": "the-apps-own-secret"}
TOKEN = "gho_16C7e42F292c6912E7710c838347Ae178B4a"
ADA = {"email": "ada@example.com", "primary": True, "verified": True, "visibility": "private"}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with Runtime(Settings(home=tmp_path_factory.mktemp("home")), patient=False) as opened:
        yield opened


class Site:
    """What GitHub answers, and what it was asked."""

    def __init__(self, server: HTTPServer) -> None:
        self.url = server.url_for("").rstrip("/")
        self.token: tuple[int, Any] = (200, {"access_token": TOKEN, "token_type": "bearer", "scope": "user:email"})
        self.user: tuple[int, Any] = (200, {"id": 583231, "login": "ada", "name": "Ada", "email": None})
        self.emails: tuple[int, Any] = (200, [ADA])
        self.asked: list[Request] = []
        for path, name in (
            ("/login/oauth/access_token", "token"),
            ("/api/v3/user", "user"),
            ("/api/v3/user/emails", "emails"),
        ):
            server.expect_request(path).respond_with_handler(lambda request, name=name: self._answer(request, name))

    def _answer(self, request: Request, name: str) -> Response:
        request.get_data()
        self.asked.append(request)
        status, body = getattr(self, name)
        return Response(json.dumps(body), status=status, content_type="application/json")


@pytest.fixture
def site(httpserver: HTTPServer) -> Site:
    return Site(httpserver)


def client(rooms: Runtime, site: Site) -> GitHub:
    settings = {"base_url": site.url, "api_url": f"{site.url}/api/v3"}
    return GitHub(App("github", settings, datetime.now(UTC), tuple(SECRETS)), SECRETS, rooms.transport)


def test_the_person_is_known_by_number_and_by_the_primary_verified_address(rooms: Runtime, site: Site) -> None:
    site.emails = (200, [{"email": "old@example.com", "primary": False, "verified": True}, ADA])

    assert client(rooms, site).identify("the-code", TRIP, None) == Identity("github:583231", "ada@example.com", "Ada")

    exchange, user, emails = site.asked
    assert {name: values[0] for name, values in parse_qs(exchange.get_data(as_text=True)).items()} == {
        **SECRETS,
        "code": "the-code",
        "redirect_uri": TRIP.redirect_uri,
        "code_verifier": TRIP.code_verifier,
    }
    assert exchange.headers["Accept"] == "application/json"  # without it the answer is a form
    for request in (user, emails):
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        assert request.headers["User-Agent"].startswith("flux-pipelines/")  # without it GitHub refuses
        assert request.headers["Accept"] == "application/vnd.github+json"
        assert request.headers["X-GitHub-Api-Version"]


def test_the_browser_is_sent_with_state_and_challenge(rooms: Runtime, site: Site) -> None:
    url = client(rooms, site).authorize_url("the-state", TRIP)

    asked = query_of(url)
    assert url.startswith(f"{site.url}/login/oauth/authorize?")
    assert (asked["state"], asked["code_challenge_method"]) == ("the-state", "S256")
    assert asked["redirect_uri"] == TRIP.redirect_uri
    assert set(asked["scope"].split()) == {"read:user", "user:email"}
    assert TRIP.code_verifier not in url
    assert SECRETS["client_secret"] not in url


@pytest.mark.parametrize(
    "error",
    ["bad_verification_code", "incorrect_client_credentials", "redirect_uri_mismatch", "unverified_user_email"],
)
def test_an_error_with_status_200_is_an_error(rooms: Runtime, site: Site, error: str) -> None:
    site.token = (200, {"error": error, "error_description": "no", "error_uri": "https://docs.github.com"})

    with pytest.raises(SignInRefusedError, match=error):
        client(rooms, site).identify("the-code", TRIP, None)
    assert len(site.asked) == 1


def test_an_error_beside_a_token_is_still_an_error(rooms: Runtime, site: Site) -> None:
    site.token = (200, {"error": "bad_verification_code", "access_token": TOKEN})

    with pytest.raises(SignInRefusedError, match="bad_verification_code"):
        client(rooms, site).identify("the-code", TRIP, None)


@pytest.mark.parametrize("answer", [(200, {}), (200, {"access_token": ""}), (200, {"error": "<script>alert(1)"})])
def test_an_answer_without_a_token_is_refused_and_strange_codes_are_not_repeated(
    rooms: Runtime, site: Site, answer: tuple[int, Any]
) -> None:
    site.token = answer

    with pytest.raises(SignInRefusedError, match="does not accept") as refused:
        client(rooms, site).identify("the-code", TRIP, None)
    assert "script" not in str(refused.value)


@pytest.mark.parametrize(
    "emails",
    [
        [],
        [{"email": "ada@example.com", "primary": True, "verified": False}],
        [{"email": "ada@example.com", "primary": False, "verified": True}],
        [
            {"email": "ada@example.com", "primary": False, "verified": True},
            {"email": "x@example.com", "primary": True, "verified": False},
        ],
        [{"email": "ada@example.com"}],
    ],
)
def test_only_the_primary_and_verified_address_counts(rooms: Runtime, site: Site, emails: list[Any]) -> None:
    site.emails = (200, emails)

    with pytest.raises(SignInRefusedError, match="not verified"):
        client(rooms, site).identify("the-code", TRIP, None)


def test_the_address_of_the_profile_is_not_believed(rooms: Runtime, site: Site) -> None:
    site.user = (200, {"id": 7, "login": "eve", "name": None, "email": "ada@example.com"})
    site.emails = (200, [{"email": "eve@evil.example", "primary": True, "verified": True}])

    assert client(rooms, site).identify("the-code", TRIP, None) == Identity("github:7", "eve@evil.example", "eve")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_token_that_may_not_read_addresses_is_refused(rooms: Runtime, site: Site, status: int) -> None:
    site.emails = (status, {"message": "Not Found"})

    with pytest.raises(SignInRefusedError, match=f"/user/emails: status {status}") as refused:
        client(rooms, site).identify("the-code", TRIP, None)
    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize("user", [{}, {"id": "583231"}, {"id": None}, [], "x"])
def test_a_person_without_a_number_is_refused(rooms: Runtime, site: Site, user: Any) -> None:
    site.user = (200, user)

    with pytest.raises(SignInRefusedError, match="documented form"):
        client(rooms, site).identify("the-code", TRIP, None)


@pytest.mark.parametrize("name", ["base_url", "api_url"])
@pytest.mark.parametrize("url", ["http://github.example.com", "http://169.254.169.254", "file:///etc", "github.com"])
def test_its_addresses_must_be_https(rooms: Runtime, name: str, url: str) -> None:
    app = App("github", {name: url}, datetime.now(UTC), tuple(SECRETS))

    with pytest.raises(ConfigurationError, match=f"`{name}`.*must be an https address"):
        GitHub(app, SECRETS, rooms.transport)


def test_an_answer_that_names_another_issuer_is_refused_before_the_code_is_sent(rooms: Runtime, site: Site) -> None:
    with pytest.raises(SignInRefusedError, match="another identity provider"):
        client(rooms, site).identify("code", TRIP, "https://accounts.google.com")
    assert site.asked == []
