"""The ID token is believed only when every single thing about it is right; and Flux calls nobody but the issuer."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey
from pytest_httpserver import HTTPServer

from flux_pipelines.domain.errors import ConfigurationError, FluxError, SignInRefusedError
from flux_pipelines.gateway.identity import Identity, RoundTrip
from flux_pipelines.gateway.openid import GOOGLE, OpenId
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines.state.credentials.apps import App
from flux_pipelines_tests.gateway.issuer import CLIENT_ID, CLIENT_SECRET, Issuer
from flux_pipelines_tests.gateway.people import query_of

TRIP = RoundTrip("http://127.0.0.1:8410/sign-in/google/callback", "v" * 64, "the-nonce-of-this-sign-in")
SECRETS = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with Runtime(Settings(home=tmp_path_factory.mktemp("home")), patient=False) as opened:
        yield opened


@pytest.fixture
def issuer(httpserver: HTTPServer) -> Issuer:
    return Issuer(httpserver)


def client(
    rooms: Runtime, issuer: Issuer | str, clock: Callable[[], float] = time.monotonic, **settings: str
) -> OpenId:
    url = issuer if isinstance(issuer, str) else issuer.url
    app = App("google", {"issuer": url, **settings}, datetime.now(UTC), ("client_id", "client_secret"))
    return OpenId(app, SECRETS, rooms.transport, clock=clock)


def identify(rooms: Runtime, issuer: Issuer, token: str, **settings: str) -> Identity:
    issuer.token = token
    return client(rooms, issuer, **settings).identify("the-code", TRIP, None)


def test_a_good_token_is_believed_and_the_code_is_exchanged_with_its_verifier(rooms: Runtime, issuer: Issuer) -> None:
    found = identify(rooms, issuer, issuer.sign(issuer.claims(TRIP.nonce)))

    assert found == Identity("google:1234567890", "ada@example.com", "Ada")
    assert issuer.asked == [
        {
            "grant_type": "authorization_code",
            "code": "the-code",
            "redirect_uri": TRIP.redirect_uri,
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "code_verifier": TRIP.code_verifier,
        }
    ]


def test_the_browser_is_sent_with_state_nonce_and_challenge_and_without_any_secret(
    rooms: Runtime, issuer: Issuer
) -> None:
    url = client(rooms, issuer, hosted_domain="example.com").authorize_url("the-state", TRIP)

    asked = query_of(url)
    assert url.startswith(f"{issuer.url}/auth?")
    assert asked["state"] == "the-state"
    assert asked["nonce"] == TRIP.nonce
    assert asked["redirect_uri"] == TRIP.redirect_uri
    assert asked["response_type"] == "code"
    assert asked["scope"] == "openid email profile"
    assert asked["hd"] == "example.com"
    assert asked["code_challenge_method"] == "S256"
    # RFC 7636, 4.2, computed here on its own.
    expected = base64.urlsafe_b64encode(hashlib.sha256(TRIP.code_verifier.encode()).digest()).rstrip(b"=").decode()
    assert asked["code_challenge"] == expected
    assert TRIP.code_verifier not in url
    assert CLIENT_SECRET not in url


NOW = int(time.time())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://evil.example"}, "somebody else"),
        ({"iss": None}, "somebody else"),
        ({"aud": "another-app"}, "another app"),
        ({"aud": [CLIENT_ID, "another-app"]}, "another app"),
        ({"aud": [CLIENT_ID, "another-app"], "azp": "another-app"}, "another app"),
        ({"azp": "another-app"}, "another app"),
        ({"aud": None}, "another app"),
        ({"exp": NOW - 120}, "expired"),
        ({"exp": None}, "expired"),
        ({"exp": "tomorrow"}, "expired"),
        ({"exp": True}, "expired"),
        ({"iat": NOW + 7200}, "future"),
        ({"iat": None}, "future"),
        ({"nonce": "of-another-sign-in"}, "another sign-in"),
        ({"nonce": None}, "another sign-in"),
        ({"nonce": ["the-nonce-of-this-sign-in"]}, "another sign-in"),
        ({"sub": ""}, "nobody"),
        ({"sub": None}, "nobody"),
        ({"sub": 7}, "nobody"),
        ({"sub": "x" * 201}, "nobody"),
        ({"email_verified": False}, "not verified"),
        ({"email_verified": None}, "not verified"),
        ({"email_verified": "false"}, "not verified"),
        ({"email_verified": "true"}, "not verified"),
        ({"email": None}, "not verified"),
    ],
)
def test_a_wrong_claim_is_refused(rooms: Runtime, issuer: Issuer, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(SignInRefusedError, match=reason):
        identify(rooms, issuer, issuer.sign(issuer.claims(TRIP.nonce, **changes)))


@pytest.mark.parametrize("part", [0, 1])
def test_a_token_that_is_nested_too_deeply_is_refused(rooms: Runtime, issuer: Issuer, part: int) -> None:
    parts = issuer.sign(issuer.claims(TRIP.nonce)).split(".")
    parts[part] = base64.urlsafe_b64encode(b"[" * 1200 + b"]" * 1200).rstrip(b"=").decode()
    with pytest.raises(SignInRefusedError, match="cannot be read"):
        identify(rooms, issuer, ".".join(parts))


def test_claims_within_the_leeway_of_clocks_are_accepted(rooms: Runtime, issuer: Issuer) -> None:
    now = int(time.time())
    token = issuer.sign(issuer.claims(TRIP.nonce, exp=now - 20, iat=now + 20))

    assert identify(rooms, issuer, token).email == "ada@example.com"


@pytest.mark.parametrize(
    "domain", [None, "other.com", "sub.example.com", "", 5, "example.\u212aom", "exampl\uff45.com"]
)
def test_only_the_hosted_domain_is_admitted(rooms: Runtime, issuer: Issuer, domain: Any) -> None:
    with pytest.raises(SignInRefusedError, match=r"only accounts of example\.com"):
        identify(rooms, issuer, issuer.sign(issuer.claims(TRIP.nonce, hd=domain)), hosted_domain="example.com")


def test_the_hosted_domain_itself_is_admitted(rooms: Runtime, issuer: Issuer) -> None:
    token = issuer.sign(issuer.claims(TRIP.nonce, hd="Example.com"))

    assert identify(rooms, issuer, token, hosted_domain="example.com").email == "ada@example.com"


def test_a_hosted_domain_is_not_taken_for_another_and_what_is_none_is_refused(rooms: Runtime, issuer: Issuer) -> None:
    token = issuer.sign(issuer.claims(TRIP.nonce, hd="strasse.example"))
    with pytest.raises(SignInRefusedError, match=r"only accounts of xn--strae-oqa\.example"):
        identify(rooms, issuer, token, hosted_domain="straße.example")
    with pytest.raises(ConfigurationError, match="which is no domain"):
        client(rooms, issuer, hosted_domain="\u212aelvin.example")


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _renamed(token: str, kid: Any) -> str:
    """A good token whose header names its key in another way."""
    return ".".join([_part({"alg": "RS256", "kid": kid}), *token.split(".")[1:]])


def _forgeries(issuer: Issuer) -> dict[str, str]:
    claims = issuer.claims(TRIP.nonce)
    good = issuer.sign(claims)
    head, body, signature = good.split(".")
    stranger = RSAKey.generate_key(2048, {"kid": "one"})
    # The classic: the public key, which everybody has, taken for the secret of a MAC.
    start = ".".join(_part(value) for value in ({"alg": "HS256", "kid": "one"}, claims))
    mac = hmac.new(issuer.key.as_pem(private=False), start.encode(), hashlib.sha256).digest()
    return {
        "signed by a stranger under the same key id": issuer.sign(claims, key=stranger),
        "not signed": f"{_part({'alg': 'none', 'kid': 'one'})}.{_part(claims)}.",
        "signature cut off": f"{head}.{body}.",
        "claims altered": f"{head}.{_part({**claims, 'email': 'eve@example.com'})}.{signature}",
        "MAC with the public key": f"{start}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}",
        "another algorithm of the right key": issuer.sign(claims, alg="RS384"),
        "a key that is not published": issuer.sign(claims, kid="two"),
        "key named by a number": _renamed(good, 1),
        "key without a name": _renamed(good, ""),
        "not a token": "garbage",
        "empty": "",
        "three dots": "...",
    }


FORGERIES = (
    "signed by a stranger under the same key id",
    "not signed",
    "signature cut off",
    "claims altered",
    "MAC with the public key",
    "another algorithm of the right key",
    "a key that is not published",
    "key named by a number",
    "key without a name",
    "not a token",
    "empty",
    "three dots",
)


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_token_is_refused(rooms: Runtime, issuer: Issuer, forgery: str) -> None:
    made = _forgeries(issuer)
    assert set(made) == set(FORGERIES)

    with pytest.raises(SignInRefusedError, match="cannot be believed"):
        identify(rooms, issuer, made[forgery])


def test_a_token_that_names_no_key_is_believed_only_when_the_issuer_has_but_one(rooms: Runtime, issuer: Issuer) -> None:
    token = issuer.sign(issuer.claims(TRIP.nonce), kid=None)
    assert identify(rooms, issuer, token).email == "ada@example.com"

    issuer.published.append(RSAKey.generate_key(2048, {"kid": "two", "use": "sig"}).as_dict(private=False))
    with pytest.raises(SignInRefusedError, match="key is not known"):
        identify(rooms, issuer, token)


def test_an_encryption_key_does_not_sign(rooms: Runtime, issuer: Issuer) -> None:
    issuer.published = [{**issuer.published[0], "use": "enc"}]

    with pytest.raises(SignInRefusedError, match="key is not known"):
        identify(rooms, issuer, issuer.sign(issuer.claims(TRIP.nonce)))


def test_a_new_key_of_the_issuer_is_found_and_strangers_cannot_make_us_ask_for_ever(
    rooms: Runtime, issuer: Issuer
) -> None:
    now = 1000.0
    openid = client(rooms, issuer, clock=lambda: now)
    issuer.token = issuer.sign(issuer.claims(TRIP.nonce))
    openid.identify("code", TRIP, None)
    openid.identify("code", TRIP, None)
    assert issuer.keys_asked == 1

    stranger = RSAKey.generate_key(2048, {"kid": "two", "use": "sig"})
    issuer.token = issuer.sign(issuer.claims(TRIP.nonce), key=stranger, kid="two")
    for _ in range(3):
        with pytest.raises(SignInRefusedError, match="key is not known"):
            openid.identify("code", TRIP, None)
    assert issuer.keys_asked == 2

    issuer.published.append(stranger.as_dict(private=False))
    now += 31
    assert openid.identify("code", TRIP, None).subject == "google:1234567890"
    assert issuer.keys_asked == 3


@pytest.mark.parametrize("name", ["https://evil.example", "accounts.google.com", ""])
def test_an_answer_that_names_another_issuer_is_refused_before_the_code_is_sent(
    rooms: Runtime, issuer: Issuer, name: str
) -> None:
    with pytest.raises(SignInRefusedError, match="another identity provider"):
        client(rooms, issuer).identify("code", TRIP, name)
    assert issuer.asked == []


def test_google_may_write_its_name_both_ways(rooms: Runtime) -> None:
    openid = client(rooms, GOOGLE)

    assert openid._names == {"https://accounts.google.com", "accounts.google.com"}
    assert client(rooms, "https://login.example.com")._names == {"https://login.example.com"}


def test_a_code_that_is_not_good_says_so_without_repeating_it(rooms: Runtime, issuer: Issuer) -> None:
    issuer.answer = (400, '{"error": "invalid_grant", "error_description": "code the-code is used"}')

    with pytest.raises(SignInRefusedError, match="invalid_grant") as refused:
        client(rooms, issuer).identify("the-code", TRIP, None)
    for secret in ("the-code", TRIP.code_verifier, CLIENT_SECRET):
        assert secret not in str(refused.value)


@pytest.mark.parametrize("body", ["{}", '{"id_token": 5}', "[]", '"text"'])
def test_an_answer_of_another_form_is_refused(rooms: Runtime, issuer: Issuer, body: str) -> None:
    issuer.answer = (200, body)

    with pytest.raises(SignInRefusedError, match="documented form"):
        client(rooms, issuer).identify("code", TRIP, None)


# --- whom Flux calls ---


@pytest.mark.parametrize(
    "url",
    [
        "http://login.example.com",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.8",
        "file:///etc/passwd",
        "ftp://login.example.com",
        "https://user:password@login.example.com",
        "https://login.example.com:port",
        "https://",
        "login.example.com",
    ],
)
def test_an_issuer_must_be_an_https_address(rooms: Runtime, url: str) -> None:
    with pytest.raises(ConfigurationError, match="must be an https address"):
        client(rooms, url)


@pytest.mark.parametrize(
    "elsewhere",
    [
        "http://127.0.0.1:1/token",
        "http://localhost/token",
        "http://169.254.169.254/latest/meta-data",
        "https://evil.example/token",
        "http://[::1]/token",
        "file:///etc/passwd",
        "https://{host}@evil.example/token",
        "https://{host}.evil.example/token",
    ],
)
@pytest.mark.parametrize("endpoint", ["token_endpoint", "jwks_uri", "authorization_endpoint"])
def test_a_discovery_document_cannot_lead_anywhere_else(
    rooms: Runtime, issuer: Issuer, endpoint: str, elsewhere: str
) -> None:
    issuer.discovery[endpoint] = elsewhere.format(host=issuer.url.partition("//")[2])

    with pytest.raises(ConfigurationError, match=r"somebody else|must be an https"):
        client(rooms, issuer).authorize_url("state", TRIP)
    with pytest.raises(FluxError):
        client(rooms, issuer).identify("code", TRIP, None)
    assert issuer.asked == []


def test_a_discovery_document_of_another_issuer_is_refused(rooms: Runtime, issuer: Issuer) -> None:
    issuer.discovery["issuer"] = "https://accounts.google.com"

    with pytest.raises(ConfigurationError, match="calls itself"):
        client(rooms, issuer).authorize_url("state", TRIP)


def test_the_documented_hosts_of_google_are_its_own(rooms: Runtime) -> None:
    openid = client(rooms, GOOGLE)
    for url in (
        "https://accounts.google.com/o/oauth2/v2/auth",
        "https://oauth2.googleapis.com/token",
        "https://www.googleapis.com/oauth2/v3/certs",
    ):
        assert openid._require_issuers(url)
    for url in ("https://storage.googleapis.com/evil/certs", "https://sites.google.com/certs"):
        with pytest.raises(ConfigurationError):
            openid._require_issuers(url)


def test_a_redirect_of_the_issuer_is_not_followed(rooms: Runtime, httpserver: HTTPServer) -> None:
    from werkzeug import Response

    httpserver.expect_request("/.well-known/openid-configuration").respond_with_response(
        Response(status=302, headers={"Location": httpserver.url_for("/inside")})
    )
    httpserver.expect_request("/inside").respond_with_data("secret")

    with pytest.raises(FluxError):
        client(rooms, httpserver.url_for("").rstrip("/")).authorize_url("state", TRIP)
    assert [request.path for request, _ in httpserver.log] == ["/.well-known/openid-configuration"]


def test_no_secret_is_in_any_repr(rooms: Runtime, issuer: Issuer, tmp_path: Path) -> None:
    openid = client(rooms, issuer)

    assert CLIENT_SECRET not in repr(openid)
    assert CLIENT_SECRET not in repr(rooms.state.apps.put("google", {}, SECRETS))
    rooms.state.apps.remove("google")
