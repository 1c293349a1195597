"""What an identity provider is, and what is believed of what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import msgspec

from flux_pipelines.domain.addresses import is_loopback
from flux_pipelines.domain.decoding import decode
from flux_pipelines.domain.errors import ConfigurationError, SignInRefusedError
from flux_pipelines.transport.redact import remember

if TYPE_CHECKING:
    from flux_pipelines.state.credentials.apps import App


@dataclass(frozen=True, slots=True)
class Identity:
    """A person as an identity provider vouches for: a key that never changes, and a verified address."""

    subject: str
    email: str
    name: str


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """The values of one sign-in that the browser must not be able to choose. Kept encrypted until it comes back."""

    redirect_uri: str
    code_verifier: str
    nonce: str


class IdentityProvider(Protocol):
    """One identity provider, with the app that is registered there."""

    title: str

    def authorize_url(self, state: str, trip: RoundTrip) -> str:
        """Return where to send the browser."""

    def identify(self, code: str, trip: RoundTrip, issuer: str | None) -> Identity:
        """Exchange the code and return who it is.

        Args:
            code: what the browser brought.
            trip: the values of the round trip that this is the end of.
            issuer: the `iss` parameter that the browser brought (RFC 9207), if any.

        Raises:
            SignInRefusedError: it cannot be believed, or the address is not verified.

        """

    def close(self) -> None:
        """Release the HTTP connections."""


def client_credentials(app: App, secrets: dict[str, str]) -> tuple[str, str]:
    """Return the app's client id and secret; the secret is masked in every message from now on.

    Raises:
        ConfigurationError: one is missing.

    """
    client_id, client_secret = secrets.get("client_id", ""), secrets.get("client_secret", "")
    if not (client_id and client_secret):
        raise ConfigurationError(
            f"the app {app.name!r} has no client id or secret",
            next_step=f"Register it again: `flux apps set {app.name} --secrets -`.",
        )
    remember(client_secret)
    return client_id, client_secret


def safe_origin_of(url: str, what: str) -> str:
    """Return scheme, host and port of an address that Flux itself may call.

    Raises:
        ConfigurationError: it is neither https nor on this machine, or has a user or a password in it.

    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    host = parts.hostname or ""
    safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    if not host or not safe or port == -1 or "@" in parts.netloc:
        raise ConfigurationError(f"{what} must be an https address, and is {url!r}")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def decoded(content: bytes, kind: type[msgspec.Struct], who: str) -> Any:
    """Read an identity provider's answer.

    Raises:
        SignInRefusedError: it is not of the documented form.

    """
    try:
        return decode(content, kind)
    except msgspec.DecodeError:
        # The parser's message may repeat what it read, tokens included.
        raise SignInRefusedError(f"{who} gave an answer that is not of the documented form") from None
