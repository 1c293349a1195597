"""Google and GitHub as the sandbox plays them: the whole sign-in, and everything that has to be refused."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from flux_pipelines_tests.sandbox.conftest import Clock
from flux_sandbox.server import RunningSandbox

Start = Callable[..., RunningSandbox]
REDIRECT = "http://127.0.0.1:1/callback?keep=1"
VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")


class Client:
    """An app that lets people sign in."""

    def __init__(self, sandbox: RunningSandbox, provider: str) -> None:
        self.http = httpx.Client(timeout=30)
        app = self.http.get(f"{sandbox.url}/sandbox/app").json()["apps"][provider]
        self.settings, self.secrets = app["settings"], app["secrets"]
        self.authorize_url = self.token_url = ""

    def ask(self, **query: str | None) -> httpx.Response:
        asked = {
            "client_id": self.secrets["client_id"],
            "response_type": "code",
            "redirect_uri": REDIRECT,
            "state": "s",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            **query,
        }
        return self.http.get(self.authorize_url, params={k: v for k, v in asked.items() if v is not None})

    def back(self, **query: str | None) -> dict[str, str]:
        answer = self.ask(**query)
        assert answer.status_code == 302, answer.text
        assert answer.headers["location"].startswith(REDIRECT + "&")
        found = {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}
        assert found["state"] == "s"
        return found

    def token(self, code: str | None, headers: dict[str, str] | None = None, **form: str | None) -> httpx.Response:
        full = {
            **self.secrets,
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": REDIRECT,
            "code_verifier": VERIFIER,
            **form,
        }
        return self.http.post(self.token_url, data={k: v for k, v in full.items() if v is not None}, headers=headers)


class Google(Client):
    def __init__(self, sandbox: RunningSandbox) -> None:
        super().__init__(sandbox, "google")
        self.found = self.http.get(f"{self.settings['issuer']}/.well-known/openid-configuration").json()
        self.authorize_url, self.token_url = self.found["authorization_endpoint"], self.found["token_endpoint"]

    def ask(self, **query: str | None) -> httpx.Response:
        return super().ask(**{"scope": "openid email profile", "nonce": "n-1", **query})

    def claims(self, id_token: str) -> tuple[dict[str, Any], dict[str, Any]]:
        keys = KeySet.import_key_set(self.http.get(self.found["jwks_uri"]).json())
        token = jwt.decode(id_token, keys, algorithms=["RS256"])
        return token.header, token.claims


class GitHub(Client):
    def __init__(self, sandbox: RunningSandbox) -> None:
        super().__init__(sandbox, "github")
        self.authorize_url = f"{self.settings['base_url']}/login/oauth/authorize"
        self.token_url = f"{self.settings['base_url']}/login/oauth/access_token"

    def ask(self, **query: str | None) -> httpx.Response:
        return super().ask(**{"scope": "read:user user:email", "response_type": None, **query})

    def token(self, code: str | None, headers: dict[str, str] | None = None, **form: str | None) -> httpx.Response:
        return super().token(code, headers or {"Accept": "application/json"}, **{"grant_type": None, **form})

    def sign_in(self, person: str, **query: str | None) -> str:
        return str(self.token(self.back(person=person, **query)["code"]).json()["access_token"])

    def api(self, path: str, token: str, **headers: str) -> httpx.Response:
        sent = {"Authorization": f"Bearer {token}", **headers}
        return self.http.get(f"{self.settings['api_url']}{path}", headers=sent)


# Google -------------------------------------------------------------------------------------------------------------


def test_signing_in_with_google(start: Start, clock: Clock, shared: Path) -> None:
    google = Google(start())
    assert google.found["issuer"] == google.settings["issuer"]
    page = google.ask()
    assert page.status_code == 200
    for text in ("ada@example.com", "grace@example.com", "unverified@example.com"):
        assert text in page.text
    back = google.back(person="ada@example.com")
    assert back["hd"] == "example.com"
    answer = google.token(back["code"]).json()
    example = json.loads((shared / "examples/oauth/google_token_and_idtoken_claims.json").read_text())
    assert set(answer) == set(example["token_response"])
    header, claims = google.claims(answer["id_token"])
    assert header["alg"] == "RS256"
    assert set(claims) >= set(example["id_token_claims"])
    assert claims["iss"] == google.settings["issuer"]
    assert claims["aud"] == google.secrets["client_id"]
    assert claims["nonce"] == "n-1"
    assert claims["iat"] == clock.now.timestamp()
    assert claims["exp"] == clock.now.timestamp() + 3600
    assert (claims["email"], claims["email_verified"], claims["hd"]) == ("ada@example.com", True, "example.com")


def test_google_says_whose_address_is_not_confirmed(start: Start) -> None:
    google = Google(start())
    _, claims = google.claims(google.token(google.back(person="unverified@example.com")["code"]).json()["id_token"])
    assert claims["email_verified"] is False
    assert "hd" not in claims
    _, claims = google.claims(google.token(google.back(person="ada", scope="openid")["code"]).json()["id_token"])
    assert "email" not in claims
    _, claims = google.claims(google.token(google.back(person="ada", nonce=None)["code"]).json()["id_token"])
    assert "nonce" not in claims


def test_googles_codes_work_once_for_ten_minutes_and_for_whoever_began(start: Start, clock: Clock) -> None:
    google = Google(start())

    def refused(status: int, error: str, **form: str | None) -> None:
        answer = google.token(**{"code": google.back(person="ada")["code"], **form})
        assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text

    refused(401, "invalid_client", client_secret="wrong")
    refused(401, "invalid_client", client_id="wrong")
    refused(400, "redirect_uri_mismatch", redirect_uri="http://127.0.0.1:1/other")
    refused(400, "invalid_grant", code_verifier="w" * 64)
    refused(400, "invalid_grant", code_verifier=None)
    refused(400, "unsupported_grant_type", grant_type="password")
    refused(400, "invalid_grant", code="4/0Amade-up")
    code = google.back(person="ada")["code"]
    assert google.token(code, code_verifier="wrong").status_code == 400
    assert google.token(code).status_code == 400  # a wrong attempt uses the code up
    code = google.back(person="ada")["code"]
    assert google.token(code).status_code == 200
    assert google.token(code).json()["error"] == "invalid_grant"
    code = google.back(person="ada")["code"]
    clock.forward(601)
    assert google.token(code).json()["error"] == "invalid_grant"
    code = google.back(person="ada", code_challenge=None, code_challenge_method=None)["code"]
    assert google.token(code).json()["error"] == "invalid_grant"  # a verifier without a challenge: a downgrade


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"client_id": "x"}, 401),
        ({"redirect_uri": "/relative"}, 400),
        ({"redirect_uri": "http://x/#fragment"}, 400),
        ({"scope": "email"}, 400),
        ({"scope": "openid everything"}, 400),
        ({"response_type": "token"}, 400),
        ({"code_challenge_method": "S512"}, 400),
    ],
)
def test_google_shows_no_page_for_what_cannot_be_asked(start: Start, query: dict[str, str], status: int) -> None:
    answer = Google(start()).ask(**query, person="ada")
    assert answer.status_code == status
    assert "Access blocked" in answer.text


def test_google_can_be_refused_and_does_not_ask_where_it_may_not(start: Start) -> None:
    google = Google(start())
    assert google.back(deny="1")["error"] == "access_denied"
    assert google.back(prompt="none")["error"] == "interaction_required"
    hinted = google.ask(login_hint="mallory@example.net").text
    assert hinted.index("mallory@example.net") < hinted.index("ada@example.com")


def test_google_changes_its_keys(start: Start) -> None:
    sandbox = start()
    google = Google(sandbox)
    old = google.token(google.back(person="ada")["code"]).json()["id_token"]
    kid = google.http.post(f"{sandbox.url}/sandbox/identity/rotate").json()["kid"]
    new = google.token(google.back(person="ada")["code"]).json()["id_token"]
    header, _ = google.claims(new)
    assert header["kid"] == kid
    assert google.claims(old)[0]["kid"] != kid
    assert [set(key) for key in google.http.get(google.found["jwks_uri"]).json()["keys"]] == [
        {"kty", "n", "e", "kid", "use", "alg"}
    ] * 2


# GitHub -------------------------------------------------------------------------------------------------------------


def test_signing_in_with_github(start: Start, shared: Path) -> None:
    github = GitHub(start())
    assert "grace@example.com" in github.ask().text
    answer = github.token(github.back(person="grace@example.com")["code"]).json()
    example = json.loads((shared / "examples/oauth/github_token_response.json").read_text())
    assert set(answer) == set(example)
    assert answer["scope"] == "read:user,user:email"
    assert answer["access_token"].startswith("gho_")
    user = github.api("/user", answer["access_token"]).json()
    assert (user["login"], user["email"]) == ("grace", None)
    assert isinstance(user["id"], int)
    emails = github.api("/user/emails", answer["access_token"]).json()
    example = json.loads((shared / "examples/oauth/github_user_emails.json").read_text())
    assert {frozenset(one) for one in emails} == {frozenset(example[0])}
    # The first one listed is not the one to take.
    assert [(one["email"], one["primary"], one["verified"]) for one in emails] == [
        ("amazing.grace@example.net", False, False),
        ("grace@example.com", True, True),
    ]


def test_githubs_errors_have_status_200(start: Start, clock: Clock, shared: Path) -> None:
    github = GitHub(start())

    def refused(error: str, **form: str | None) -> dict[str, Any]:
        answer = github.token(**{"code": github.back(person="ada")["code"], **form})
        assert (answer.status_code, answer.json()["error"]) == (200, error), answer.text
        return dict(answer.json())

    example = json.loads((shared / "examples/oauth/github_error_bad_verification_code.json").read_text())
    assert refused("bad_verification_code", code="made-up") == example
    refused("incorrect_client_credentials", client_secret="wrong")
    refused("incorrect_client_credentials", client_id="wrong")
    refused("redirect_uri_mismatch", redirect_uri="http://127.0.0.1:1/other")
    refused("bad_verification_code", code_verifier="w" * 64)
    refused("bad_verification_code", code_verifier=None)
    code = github.back(person="ada")["code"]
    assert "access_token" in github.token(code).json()
    assert github.token(code).json()["error"] == "bad_verification_code"
    code = github.back(person="ada")["code"]
    clock.forward(601)
    assert github.token(code).json()["error"] == "bad_verification_code"


def test_github_answers_as_a_form_unless_asked_for_json(start: Start) -> None:
    github = GitHub(start())
    answer = github.token(github.back(person="ada")["code"], {"Accept": "*/*"})
    assert answer.headers["content-type"].startswith("application/x-www-form-urlencoded")
    assert dict(parse_qsl(answer.text))["token_type"] == "bearer"
    asked = {**github.secrets, "code": github.back(person="ada")["code"], "code_verifier": VERIFIER}
    assert (
        "access_token" in github.http.post(github.token_url, json=asked, headers={"Accept": "application/json"}).json()
    )
    assert github.http.post(github.token_url, content=b"[1]", headers={"Content-Type": "application/json"}).text


def test_githubs_api_wants_a_token_a_scope_and_a_name(start: Start) -> None:
    github = GitHub(start())
    token = github.sign_in("ada")
    nameless = github.api("/user", token, **{"User-Agent": ""})
    assert (nameless.status_code, "User-Agent" in nameless.text) == (403, True)
    assert github.api("/user", "gho_made_up").status_code == 401
    narrow = github.sign_in("ada", scope="read:user")
    assert github.api("/user", narrow).status_code == 200
    refused = github.api("/user/emails", narrow)
    assert refused.status_code == 404
    assert refused.headers["x-oauth-scopes"] == "read:user"
    assert "user:email" in refused.headers["x-accepted-oauth-scopes"]


def test_githubs_people_are_not_all_who_they_seem(start: Start) -> None:
    github = GitHub(start())
    (only,) = github.api("/user/emails", github.sign_in("unverified@example.com")).json()
    assert (only["primary"], only["verified"]) == (True, False)
    henry = github.api("/user/emails", github.sign_in("henry")).json()
    assert [one["email"] for one in henry if one["verified"]] == ["henry@example.com", "henry@example.net"]
    assert [one["email"] for one in henry if one["primary"]] == ["henry@example.net"]


def test_github_can_be_refused_and_knows_its_apps(start: Start) -> None:
    github = GitHub(start())
    assert github.back(deny="1")["error"] == "access_denied"
    assert github.back(code_challenge_method="plain", person="ada")["error"] == "invalid_request"
    assert github.ask(client_id="x").status_code == 404
    assert github.ask(redirect_uri="mailto:x", person="ada").status_code == 400
