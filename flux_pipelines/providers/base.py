"""What a provider declares, and the small protocols (capabilities) it implements.

Pipelines, sandbox and command line know providers only through this file and `registry.py`; none of them names one.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.transport import Transport

Basis = Literal["created", "closed", "updated"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `requests` in any window of `seconds`, per location of a connection."""

    requests: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a connection: its default, its type (int, str or float) and what it means."""

    name: str
    default: int | str | float
    meaning: str


@dataclass(frozen=True, slots=True)
class Provider:
    """The declaration of a provider: everything the rest of Flux needs to know without importing its code.

    `pos_source`, `oauth`, `webhooks` and `sandbox` are `module:attribute` references, imported when first used, so that loading
    the code location stays cheap.
    """

    name: str
    title: str
    owner: str
    docs_url: str
    base_url: str
    api_version: str
    rate_limits: tuple[RateLimit, ...]
    settings: tuple[Setting, ...]
    secrets: tuple[tuple[str, ...], ...]  # each entry is one complete way to authenticate
    scopes: tuple[str, ...] = ()
    pos_source: str | None = None  # Callable[[SourceContext], PosSource]
    oauth: str | None = None  # Callable[[OAuthContext], OAuthProvider]
    #: Whether an authorisation carries PKCE (S256): never, always, or for apps that were registered without a secret.
    pkce: Literal["no", "always", "without_secret"] = "no"
    #: Whether the refresh token before the present one is accepted for a while after it was replaced.
    refresh_grace: bool = False
    webhooks: str | None = None  # Callable[[WebhookContext], WebhookSource]
    sandbox: str | None = None  # Callable[[World, SandboxOptions], Starlette app]
    transactions_sql: Path | None = None
    capabilities: frozenset[str] = field(default_factory=frozenset)

    def load(self, reference: str) -> Any:
        """Import and return the object behind a `module:attribute` reference."""
        module, _, attribute = reference.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def settings_of(self, connection: Connection) -> dict[str, Any]:
        """Return the connection's settings with the provider's defaults filled in."""
        return {s.name: connection.settings.get(s.name, s.default) for s in self.settings}


@dataclass(frozen=True, slots=True)
class Location:
    """A store as the provider describes it."""

    location_id: str
    name: str
    timezone: str
    currency: str
    active: bool = True


@dataclass(frozen=True, slots=True)
class OrderWindow:
    """A question about orders: these locations, this half-open interval `[start, end)` of UTC instants."""

    location_ids: tuple[str, ...]
    start: datetime
    end: datetime


class OrderHeader(msgspec.Struct, frozen=True, gc=False):
    """The few fields of an order that landing needs; everything else stays undecoded."""

    order_id: str
    location_id: str
    created_at: datetime
    updated_at: datetime
    closed_at: datetime | None
    state: str
    total: int  # minor units
    currency: str


class Order(msgspec.Struct, frozen=True, gc=False):
    """One order exactly as received. `header` is None when it cannot be read; `problem` then says why."""

    raw: msgspec.Raw
    header: OrderHeader | None
    problem: str = ""


class Page(NamedTuple):
    """One page of orders; `last` tells that no more follow."""

    orders: Sequence[Order]
    last: bool


class Credentials(Protocol):
    """Where a client gets its bearer token; refreshing is behind it."""

    def token(self) -> str:
        """Return a token that is valid now, refreshing it first when it is about to expire."""

    def renew(self, rejected: str) -> str:
        """Return a token other than the rejected one, refreshing under the connection's lease.

        Raises:
            ReauthorizationNeededError: the provider no longer accepts the connection.

        """


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a provider's client is built from."""

    provider: Provider
    connection: Connection
    credentials: Credentials
    transport: Transport


class PosSource(Protocol):
    """A system that rings up sales. Calls raise the errors of `domain.errors`; they are safe to use from threads."""

    max_locations_per_window: int

    def locations(self) -> list[Location]:
        """Return every location, inactive ones too."""

    def pages(self, window: OrderWindow, basis: Basis) -> Iterator[Page]:
        """Yield the window's orders by created, closed or updated time, oldest first, following cursors to the end.

        An order may be yielded twice (pages shift, expired cursors restart); none is left out.
        """

    def orders(self, order_ids: Sequence[str]) -> list[Order]:
        """Return the orders of these ids as they are now, in any order; those that do not exist are left out."""

    def confirm_access(self) -> str:
        """Prove that an empty answer means `no orders`; return the account's id, empty when the provider tells none.

        Raises:
            PermissionLostError: the credentials may no longer read orders.

        """

    def close(self) -> None:
        """Release connections."""


@dataclass(frozen=True, slots=True)
class TokenSet:
    """The answer of a token endpoint. Never log it. `expires_at` is absolute."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_at: datetime | None
    account_id: str = ""
    refresh_expires_at: datetime | None = None


class OAuthProvider(Protocol):
    """OAuth 2 as the provider speaks it."""

    def authorize_url(self, redirect_uri: str, state: str, code_challenge: str | None = None) -> str:
        """Return the URL to send the person's browser to."""

    def exchange(self, code: str, redirect_uri: str, code_verifier: str | None = None) -> TokenSet:
        """Exchange an authorization code for tokens."""

    def refresh(self, refresh_token: str) -> TokenSet:
        """Return new tokens.

        Raises:
            ReauthorizationNeededError: the refresh token is no longer accepted.

        """

    def revoke(self, access_token: str) -> None:
        """Revoke the authorisation at the provider."""

    def close(self) -> None:
        """Release connections."""


@dataclass(frozen=True, slots=True)
class OAuthContext:
    """What an OAuth client is built from: the app's own credentials and where the provider is."""

    provider: Provider
    base_url: str
    client_id: str
    client_secret: str = field(repr=False)
    transport: Transport = field(repr=False)
    connection: str = ""


class WebhookRequest(NamedTuple):
    """A delivery as it arrived: the names of `headers` in lower case, repeated ones joined by `, `."""

    headers: Mapping[str, str]
    body: bytes


class WebhookEvent(NamedTuple):
    """The few fields of an event that the inbox needs. `account_id` is the provider's name for the account."""

    event_id: str
    event_type: str
    account_id: str
    occurred_at: datetime | None


class Affected(NamedTuple):
    """What an event makes stale.

    `sold` are the orders it touches: where, and when each was created, which is what its business date follows from.
    `locations` asks for the connection's locations again; `revoked` says that the account was disconnected at the
    provider; `nothing` is why there is nothing to be done, and empty when there is something.
    """

    sold: frozenset[tuple[str, datetime]] = frozenset()
    locations: bool = False
    revoked: bool = False
    nothing: str = ""


class WebhookSource(Protocol):
    """A provider's webhooks: what it signs and what its events mean. Safe to use from threads."""

    refused_status: int
    """The status that the provider expects for a signature that does not fit."""

    def verify(self, request: WebhookRequest) -> None:
        """Prove in constant time that the provider sent this, and not too long ago if it says when.

        Raises:
            WebhookRefusedError: it cannot be proved.

        """

    def read(self, body: bytes) -> WebhookEvent:
        """Read the event's own fields.

        Raises:
            WebhookRefusedError: the body is not an event.

        """

    def affected(self, events: Sequence[tuple[str, bytes]], source: PosSource) -> list[Affected]:
        """Say what each event (its type and body, of one connection) makes stale, in the order given.

        Many at once, so that a storm costs few calls: what the events only name is fetched through `source` together.
        An event that cannot be read, or of an object that is gone, is `nothing`; it does not lose the others.
        Raises what `PosSource.orders` does.
        """


@dataclass(frozen=True, slots=True)
class WebhookContext:
    """What a provider's webhooks are built from: the address as registered there, and the key it signs with."""

    provider: Provider
    notification_url: str
    signature_key: str = field(repr=False)
