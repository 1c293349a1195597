"""What the sandbox asks of a provider's side of the wire, and what every provider's is made of.

`build(world, options)` of `flux_sandbox/NAME/api.py` returns a `ProviderSandbox`. One with webhooks is a `TellingSandbox` too, one
whose apps sign in with credentials of their own a `CredentialedSandbox`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from starlette.responses import Response
from starlette.routing import BaseRoute

from flux_sandbox.faults import FaultInjector
from flux_sandbox.model import Merchant


class Granting(Protocol):
    """What a provider knows of who authorised whom; a merchant that is None stands for all."""

    def authorised(self) -> set[str]:
        """Return the ids of the merchants that have a live authorisation."""

    def issue(self, merchant: Merchant, scopes: Iterable[str], lifetime: float | None) -> Mapping[str, Any]:
        """Give out tokens without anybody authorising."""

    def revoke(self, merchant: Merchant) -> int:
        """Revoke everything the merchant granted; return how many access tokens that ended."""

    def remove_scopes(self, merchant: Merchant, scopes: Iterable[str]) -> None:
        """Take permissions away from the merchant's tokens."""

    def expire(self, merchant: Merchant | None) -> int:
        """Let the access tokens of one merchant, or of all, expire now."""


class ProviderSandbox(Granting, Protocol):
    """One provider's side of the wire, as its `build(world, options)` returns it."""

    @property
    def name(self) -> str:
        """The provider's name."""

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """The provider's own paths."""


@runtime_checkable
class CredentialedSandbox(Protocol):
    """A provider's sandbox whose apps sign in with credentials of their own."""

    name: str

    def credentials(self, merchant: Merchant) -> Mapping[str, Any]:
        """Return the `secrets` and `settings` that a connection to the merchant is made with."""


class WebhookSender(Protocol):
    """How a provider tells its apps what happens: see `subscriptions.Subscriptions`, which has all but `emit` and `signed`."""

    def subscribe(self, url: str, key: str | None, event_types: Sequence[str] | None) -> Mapping[str, Any]:
        """Tell this address of these events (default: all) from now on, signed with this key."""

    def described(self) -> list[Mapping[str, Any]]:
        """Return the subscriptions, without their keys."""

    def clear(self) -> None:
        """Tell nobody any more."""

    def emit(self, merchant: Merchant, event_type: str) -> None:
        """Announce an event of any type, known or not."""

    def signed(self, url: str, key: str, body: bytes) -> Mapping[str, str]:
        """Return the headers with which a body, whatever is in it, is one that the provider has sent to an address."""


@runtime_checkable
class TellingSandbox(Protocol):
    """A provider's sandbox that has webhooks."""

    name: str
    webhooks: WebhookSender

    def authorised(self) -> set[str]:
        """Return the ids of the merchants that have a live authorisation."""

    def app(self, url: str) -> Mapping[str, Any]:
        """Return the settings and secrets of the app as registered with this provider at a sandbox's URL."""


_Authority = TypeVar("_Authority", bound=Granting)


class AuthorisedSandbox(Generic[_Authority]):
    """What a provider's sandbox leaves to its authorisation server."""

    authority: _Authority

    def authorised(self) -> set[str]:
        """See `Granting`."""
        return self.authority.authorised()

    def issue(self, merchant: Merchant, scopes: Iterable[str], lifetime: float | None) -> Mapping[str, Any]:
        """See `Granting`."""
        return self.authority.issue(merchant, scopes, lifetime)

    def revoke(self, merchant: Merchant) -> int:
        """See `Granting`."""
        return self.authority.revoke(merchant)

    def remove_scopes(self, merchant: Merchant, scopes: Iterable[str]) -> None:
        """See `Granting`."""
        self.authority.remove_scopes(merchant, scopes)

    def expire(self, merchant: Merchant | None) -> int:
        """See `Granting`."""
        return self.authority.expire(merchant)


class ProxyError(Exception):
    """Something in front of the API answers instead of it."""

    def __init__(self, status: int, media_type: str, body: bytes) -> None:
        super().__init__(status)
        self.status, self.media_type, self.body = status, media_type, body

    def response(self) -> Response:
        """Return what it answers."""
        return Response(self.body, self.status, media_type=self.media_type)


_HTML = "text/html; charset=UTF-8"
#: What proxies were seen to answer instead of an API: (status, content type, body).
_PROXY_ANSWERS: tuple[tuple[int, str, bytes], ...] = (
    (
        500,
        _HTML,
        b'<!DOCTYPE html>\n<html lang="en-US">\n<head><title>Worker threw exception | Cloudflare</title></head>\n<body>'
        b"<h1>Error <span>1101</span></h1><p>You've requested a page on a website that is on the Cloudflare network."
        b"</p></body>\n</html>\n",
    ),
    (
        200,
        _HTML,
        b'<!DOCTYPE html>\n<html lang="en-US">\n<head><title>Just a moment...</title></head>\n<body><noscript>Enable '
        b"JavaScript and cookies to continue</noscript></body>\n</html>\n",
    ),
    (502, "text/html", b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body></body>\r\n</html>\r\n"),
    (503, "text/plain", b"upstream connect error or disconnect/reset before headers. reset reason: connection failure"),
)


def raise_fault(faults: FaultInjector, fault: str, forms: Mapping[str, Sequence[Callable[[], Exception]]]) -> None:
    """Raise what a fault (`faults.BEFORE`, or a dead cursor) makes a provider answer instead.

    Args:
        faults: choose.
        fault: the one that hits the request; any other one, and none, let it pass.
        forms: makers of the provider's own errors, by fault; a proxy's page is everybody's.

    """
    if fault == "html":
        raise ProxyError(*faults.random.choice(_PROXY_ANSWERS))
    made = forms.get(fault, ())
    if made:
        raise (faults.random.choice(made) if len(made) > 1 else made[0])()
