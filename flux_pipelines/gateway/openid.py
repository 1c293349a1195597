"""Sign-in with an OpenID provider (Google's rules): code flow with PKCE and nonce, and every check of the ID token."""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import msgspec
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from flux_pipelines.domain.addresses import domain_of
from flux_pipelines.domain.decoding import decode
from flux_pipelines.domain.errors import ConfigurationError, SignInRefusedError
from flux_pipelines.gateway.identity import Identity, RoundTrip, client_credentials, decoded, safe_origin_of
from flux_pipelines.transport import RefusedError
from flux_pipelines.transport.redact import remember

if TYPE_CHECKING:
    from flux_pipelines.state.credentials.apps import App
    from flux_pipelines.transport import Transport
    from flux_pipelines.transport.client import ApiClient

GOOGLE = "https://accounts.google.com"
#: Google's own discovery document names these hosts; any other issuer has its endpoints at home.
_HOSTS = {
    GOOGLE: frozenset({"https://accounts.google.com", "https://oauth2.googleapis.com", "https://www.googleapis.com"})
}
#: Google writes its name both ways.
_NAMES = {GOOGLE: frozenset({GOOGLE, "accounts.google.com"})}

_LEEWAY = 60  # seconds that the clocks of two machines may differ
_DISCOVERY_SECONDS = 3600.0
_KEYS_SECONDS = 3600.0
_KEYS_AGAIN_SECONDS = 30.0  # a key id that is not known makes us ask again, but strangers cannot make us ask for ever


class _Discovery(msgspec.Struct):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str


class _Tokens(msgspec.Struct):
    id_token: str


class OpenId:
    """One OpenID provider (`IdentityProvider`).

    Args:
        app: its registration: `issuer` (default Google's), `hosted_domain` to admit one Workspace domain only.
        secrets: `client_id` and `client_secret`.
        transport: the way out.
        clock: seconds that only go forward, for what is remembered of the issuer.

    Raises:
        ConfigurationError: the issuer is not an https address, `hosted_domain` no domain, or secrets are missing.

    """

    title = "Google"

    def __init__(
        self,
        app: App,
        secrets: dict[str, str],
        transport: Transport,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = app.name
        self._issuer = str(app.settings.get("issuer") or GOOGLE).rstrip("/")
        hosted = str(app.settings.get("hosted_domain") or "")
        try:
            self._hosted_domain = domain_of(hosted)
        except ValueError:
            raise ConfigurationError(
                f"the app {app.name!r} has the hosted_domain {hosted!r}, which is no domain",
                next_step="Write it in lower case, or as it is registered (xn--...).",
            ) from None
        self._client_id, self._client_secret = client_credentials(app, secrets)
        self._transport = transport
        self._clock = clock
        home = safe_origin_of(self._issuer, "the issuer")
        self._hosts = _HOSTS.get(self._issuer, frozenset({home}))
        self._names = _NAMES.get(self._issuer, frozenset({self._issuer}))
        self._clients: dict[str, ApiClient] = {}
        self._mutex = threading.Lock()
        self._discovery: tuple[float, _Discovery] | None = None
        self._keys: tuple[float, dict[str, Any]] | None = None
        self._asked_again_at = float("-inf")

    def authorize_url(self, state: str, trip: RoundTrip) -> str:
        """Return where to send the browser."""
        more = {"hd": self._hosted_domain} if self._hosted_domain else {}
        url: str = prepare_grant_uri(
            self._endpoints().authorization_endpoint,
            self._client_id,
            "code",
            redirect_uri=trip.redirect_uri,
            scope="openid email profile",
            state=state,
            nonce=trip.nonce,
            code_challenge=create_s256_code_challenge(trip.code_verifier),
            code_challenge_method="S256",
            prompt="select_account",
            **more,
        )
        return url

    def identify(self, code: str, trip: RoundTrip, issuer: str | None) -> Identity:
        """Exchange the code, check the ID token, and return who it is. Raises what `IdentityProvider` says."""
        if issuer is not None and issuer not in self._names:
            raise SignInRefusedError("the answer is of another identity provider")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": trip.redirect_uri,
            "client_id": self._client_id,
            "client_secret": self._client_secret,
            "code_verifier": trip.code_verifier,
        }
        for secret in (code, trip.code_verifier):
            remember(secret)
        url = self._endpoints().token_endpoint
        try:
            answer = self._client(url).request(
                "POST",
                _path(url),
                content=urlencode(form).encode(),
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                idempotent=False,
                auth=False,
            )
        except RefusedError as refused:
            codes = ", ".join(refused.codes) or f"status {refused.status}"
            raise SignInRefusedError(f"{self.title} does not accept the sign-in ({codes})") from refused
        tokens: _Tokens = decoded(answer.content, _Tokens, self.title)
        remember(tokens.id_token)
        return self._believe(tokens.id_token, trip.nonce)

    def close(self) -> None:
        """Release the HTTP connections."""
        with self._mutex:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    # --- the ID token ---

    def _believe(self, id_token: str, nonce: str) -> Identity:
        claims = self._verified(id_token)
        now = time.time()
        issuer, audience, party = claims.get("iss"), claims.get("aud"), claims.get("azp")
        several = isinstance(audience, list) and len(audience) > 1
        ours = audience == self._client_id or (isinstance(audience, list) and self._client_id in audience)
        if issuer not in self._names:
            raise _wrong("it was issued by somebody else")
        if not ours or (several and party is None) or party not in (None, self._client_id):
            raise _wrong("it was issued for another app")
        if not _before(now - _LEEWAY, claims.get("exp")):
            raise _wrong("it has expired")
        if not _before(claims.get("iat"), now + _LEEWAY):
            raise _wrong("it is from the future")
        given = claims.get("nonce")
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(), nonce.encode()):
            raise _wrong("it is of another sign-in")
        subject, email, name = claims.get("sub"), claims.get("email"), claims.get("name")
        if not isinstance(subject, str) or not 0 < len(subject) <= 200:
            raise _wrong("it names nobody")
        if not isinstance(email, str) or claims.get("email_verified") is not True:
            raise SignInRefusedError(
                f"{self.title} has not verified the e-mail address of this account",
                next_step="Verify the address there, or sign in with another account.",
            )
        domain = claims.get("hd")
        if self._hosted_domain and not _is_domain(domain, self._hosted_domain):
            raise SignInRefusedError(
                f"only accounts of {self._hosted_domain} may sign in",
                next_step="Sign in with an account of that organisation.",
            )
        return Identity(f"{self._name}:{subject}", email, name if isinstance(name, str) and name else email)

    def _verified(self, id_token: str) -> dict[str, Any]:
        """Return the claims of a token that one of the issuer's present keys has signed."""
        try:
            # The claims as well: what reads them below knows no bound.
            header, _ = (decode(_segment(part)) for part in id_token.split(".")[:2])
            kid = header.get("kid") if isinstance(header, dict) else ""
        except (ValueError, msgspec.DecodeError):
            kid = ""
        if kid is not None and not (isinstance(kid, str) and kid):
            raise _wrong("it cannot be read")
        key = self._key(kid)
        try:
            # One algorithm, chosen by us: `none` and a MAC made with the public key are then just wrong.
            return dict(jwt.decode(id_token, key, algorithms=["RS256"]).claims)
        except (JoseError, ValueError):
            raise _wrong("its signature is not right") from None

    def _key(self, kid: str | None) -> RSAKey:
        """Return the key of that name; without a name, the issuer's key if there is only one (OpenID Connect, 10.1)."""
        with self._mutex:
            known = self._keys
        now = self._clock()
        if known is not None and now - known[0] < _KEYS_SECONDS:
            found = _of_kid(known[1], kid)
            if found is not None:
                return found
            if now - self._asked_again_at < _KEYS_AGAIN_SECONDS:
                raise _wrong("its key is not known")
            # A new key, or an invention.
            self._asked_again_at = now
        url = self._endpoints().jwks_uri
        answer = self._client(url).request("GET", _path(url), idempotent=True, auth=False, decode=decode)
        jwks = answer.value if isinstance(answer.value, dict) else {}
        with self._mutex:
            self._keys = (now, jwks)
        found = _of_kid(jwks, kid)
        if found is None:
            raise _wrong("its key is not known")
        return found

    # --- the way out: to the issuer and nobody else ---

    def _endpoints(self) -> _Discovery:
        with self._mutex:
            known = self._discovery
        if known is not None and self._clock() - known[0] < _DISCOVERY_SECONDS:
            return known[1]
        url = f"{self._issuer}/.well-known/openid-configuration"
        answer = self._client(url).request("GET", _path(url), idempotent=True, auth=False)
        found: _Discovery = decoded(answer.content, _Discovery, self.title)
        if found.issuer.rstrip("/") != self._issuer:
            raise ConfigurationError(f"the issuer {self._issuer} calls itself {found.issuer!r}")
        for endpoint in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
            self._require_issuers(endpoint)
        with self._mutex:
            self._discovery = (self._clock(), found)
        return found

    def _require_issuers(self, url: str) -> str:
        """Return the origin of an address of the issuer.

        Raises:
            ConfigurationError: it leads elsewhere: to a stranger, or into our own network.

        """
        origin = safe_origin_of(url, "an address in the issuer's discovery document")
        if origin not in self._hosts:
            raise ConfigurationError(f"the issuer {self._issuer} names an address of somebody else: {origin}")
        return origin

    def _client(self, url: str) -> ApiClient:
        origin = self._require_issuers(url)
        with self._mutex:
            if origin not in self._clients:
                self._clients[origin] = self._transport.client(
                    provider=self._name, connection="", base_url=origin, limits=(), credentials=None, headers={}
                )
            return self._clients[origin]


def _path(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _segment(text: str) -> bytes:
    from joserfc.util import urlsafe_b64decode

    return urlsafe_b64decode(text.encode("ascii", "replace"))


def _of_kid(jwks: dict[str, Any], kid: str | None) -> RSAKey | None:
    keys = jwks.get("keys")
    signing = [
        key
        for key in (keys if isinstance(keys, list) else [])
        if isinstance(key, dict) and key.get("kty") == "RSA" and key.get("use", "sig") == "sig"
    ]
    chosen = [key for key in signing if kid is None or key.get("kid") == kid]
    try:
        return RSAKey.import_key(chosen[0]) if len(chosen) == 1 else None
    except (JoseError, ValueError, KeyError):
        return None


def _is_domain(claimed: object, domain: str) -> bool:
    try:
        return isinstance(claimed, str) and domain_of(claimed) == domain
    except ValueError:
        return False


def _before(earlier: object, later: object) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (earlier, later))
    return numbers and earlier < later  # type: ignore[operator]


def _wrong(reason: str) -> SignInRefusedError:
    return SignInRefusedError(f"the identity that came back cannot be believed: {reason}")
