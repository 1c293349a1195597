"""What a provider declares, and the small protocols it implements.

Pipelines and command line know providers only through this file and `registry.py`; none of them names one.
"""

from __future__ import annotations

import importlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec

from flux_pipelines.domain.business_day import Earlier
from flux_pipelines.domain.credentials import Credentials as Credentials
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.domain.redaction import Redaction as Redaction

if TYPE_CHECKING:
    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.transport import Transport

TimeField = Literal["created", "closed", "updated"]
#: How a stream is fetched. `windowed`: by business date, in windows of many dates that threads share, proven complete by a
#: second query; of orders alone. `daily`: by business date. `hourly`: a snapshot an hour. `current`: what there is now.
Strategy = Literal["windowed", "daily", "hourly", "current"]
#: How much of the world one partition of a stream is: a business date, an hourly snapshot (kept by business date), or
#: whatever there is now (one partition a connection).
Grain = Literal["day", "hour", "current"]
_GRAINS: dict[Strategy, Grain] = {"windowed": "day", "daily": "day", "hourly": "hour", "current": "current"}
#: The stream of what was sold, and the table that is made of it.
ORDERS, TRANSACTIONS = "orders", "transactions"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `requests` in any window of `seconds`.

    `per` says what is counted together: a `location` of a connection; a `connection`, whose token has the limit; or the `app`,
    all of its connections.
    """

    requests: int
    seconds: float
    per: Literal["location", "connection", "app"] = "location"


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most so many requests under way at a time, of a `connection` or of all of the `app`'s, in one process."""

    requests: int
    per: Literal["connection", "app"] = "connection"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a connection: its default, its type (int, str or float) and what it means."""

    name: str
    default: int | str | float
    meaning: str


@dataclass(frozen=True, slots=True)
class Stream:
    """Something that a provider can be asked for. It lands in `<provider>/raw_<name>`.

    Args:
        name: `orders`, `catalog`, `inventory`, `payments`, `labor`, `reported_sales`.
        title: what it is, for the UI ("payments and refunds").
        strategy: how it is fetched.
        passing: kinds of records that may well be there today and not tomorrow. Where all records of another kind are gone,
            that is an error, and what is stored is kept.
        again: the kind of record that says that a day should be asked for again before long; empty without one.
        dates_a_window: the most business dates that one question may be of, for a daily stream. Where that is more than one,
            each record tells when it happened (`Record.at`).
        id_field: the member of an order that holds its id.

    """

    name: str
    title: str
    strategy: Strategy
    passing: tuple[str, ...] = ()
    again: str = ""
    dates_a_window: int = 1
    id_field: str = "id"

    @property
    def grain(self) -> Grain:
        """How much one partition is."""
        return _GRAINS[self.strategy]


@dataclass(frozen=True, slots=True)
class StreamTable:
    """A table that SQL makes of a stream's records.

    Args:
        table: a contract's name in `domain.tables`: `transactions`, `payments`, `products`, `locations`, `inventory_levels`,
            `time_entries`, `reported_sales`.
        stream: of which stream.
        sql: the file; what it reads and gives is told in `docs/add-a-provider.md`.
        apart: what makes a record long and is to be read as records of their own, by kind: where in one of that kind the
            others are listed, and what kind they are (`{"product": {"variants.nodes": "variant"}}`); an empty kind leaves them out.

    """

    table: str
    stream: str
    sql: Path
    apart: Mapping[str, Mapping[str, str]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Provider:
    """The declaration of a provider: everything the rest of Flux needs to know without importing its code.

    `source`, `oauth` and `webhooks` are `module:attribute` references, imported when first used, so that loading
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
    source: str | None = None  # Callable[[SourceContext], Source]
    oauth: str | None = None  # Callable[[OAuthContext], OAuthProvider]
    #: Whether an authorisation carries PKCE (S256): never, always, or for apps that were registered without a secret.
    pkce: Literal["no", "always", "without_secret"] = "no"
    #: Whether the refresh token before the present one is accepted for a while after it was replaced.
    refresh_grace: bool = False
    #: For machine clients that sign in by themselves, without a refresh token.
    login: str | None = None  # Callable[[OAuthContext], MachineLogin]
    #: What a person must say before an authorisation can begin: the address of the shop, for example.
    connect_settings: tuple[Setting, ...] = ()
    webhooks: str | None = None  # Callable[[WebhookContext], WebhookSource]
    #: Which of the app's secrets signs webhooks, unless the app has a `webhook_signature_key` of its own.
    webhooks_signed_with: Literal["webhook_signature_key", "client_secret"] = "webhook_signature_key"
    #: The types of events that something is done for, as patterns (`orders/*`). Of all others no body is kept.
    webhook_types: tuple[str, ...] = ()
    #: When the provider stops answering `api_version`, where it says so in advance.
    sunset: date | None = None
    streams: tuple[Stream, ...] = ()
    tables: tuple[StreamTable, ...] = ()
    redaction: Redaction = field(default_factory=Redaction)

    def __post_init__(self) -> None:
        """See that events are told from those that nothing is done for: of these not even the body is kept.

        Raises:
            ConfigurationError: there are webhooks, and no types of events.

        """
        if self.webhooks and not self.webhook_types:
            raise ConfigurationError(
                f"the provider {self.name} declares webhooks and no webhook_types, so that all of its events would be dropped",
                next_step="Declare the types of events that its `affected` does something for.",
            )

    def load(self, reference: str) -> Any:
        """Import and return the object behind a `module:attribute` reference, one of its own.

        Raises:
            ConfigurationError: it lacks something of the protocol that it stands for, which would else be noticed when that is
                first called.

        """
        module, _, attribute = reference.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        for part, protocol in _PROTOCOLS.items():
            missing = members_of(protocol) - set(dir(found)) if getattr(self, part) == reference else set()
            if missing and isinstance(found, type):
                raise ConfigurationError(
                    f"the provider {self.name} is not whole: its {part}, {reference}, has no {', '.join(sorted(missing))}",
                    next_step=f"Add what is missing: {protocol.__name__} in flux_pipelines/providers/base.py tells what it is for.",
                )
        return found

    def uses(self, event_type: str) -> bool:
        """Tell whether anything is done for webhook events of a type."""
        return _is_one_of(event_type, self.webhook_types)

    def stream(self, name: str) -> Stream:
        """Return one of its streams by name."""
        return next(stream for stream in self.streams if stream.name == name)

    def streams_by(self, strategy: Strategy) -> list[Stream]:
        """Return the streams that are fetched so."""
        return [stream for stream in self.streams if stream.strategy == strategy]

    def table(self, name: str) -> StreamTable:
        """Return one of its tables by name."""
        return next(table for table in self.tables if table.table == name)

    @property
    def order_id_field(self) -> str:
        """The member of a raw order that holds its id."""
        return self.stream(ORDERS).id_field

    def settings_of(self, connection: Connection) -> dict[str, Any]:
        """Return the connection's settings with the provider's defaults filled in."""
        return {s.name: connection.settings.get(s.name, s.default) for s in self.settings}


@lru_cache(maxsize=4096)
def _is_one_of(text: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Location:
    """A store as the provider describes it; with the rules of its earlier business dates, which Flux remembers."""

    location_id: str
    name: str
    timezone: str
    currency: str
    active: bool = True
    earlier: tuple[Earlier, ...] = ()


@dataclass(frozen=True, slots=True)
class Window:
    """A question to a provider: these locations, this half-open interval `[start, end)` of UTC instants.

    `business_date` is the partition, for every stream but orders: of those it is given to providers that keep business dates
    themselves; the orders of that date are wanted then, and the interval is only where the date lies by the location's
    calendar. For what there is now, `start` and `end` are both the present instant. A question about several business dates
    has the first one here, and in `starts` when each of them begins.
    """

    location_ids: tuple[str, ...]
    start: datetime
    end: datetime
    business_date: date | None = None
    starts: tuple[datetime, ...] = ()

    @property
    def first_date(self) -> date:
        """The business date that is asked for, the first one of several.

        Raises:
            ValueError: the question is about no business date.

        """
        if self.business_date is None:
            raise ValueError("the window is of no business date")
        return self.business_date

    def by_date(self) -> list[Window]:
        """Return the questions about each of its business dates."""
        starts = self.starts or (self.start,)
        return [
            replace(self, start=start, end=end, business_date=self.date_of(start), starts=())
            for start, end in pairwise((*starts, self.end))
        ]

    def date_of(self, at: datetime) -> date:
        """Return the business date of an instant in the interval; dates follow one another without gaps."""
        return self.first_date + timedelta(days=max(0, bisect_right(self.starts, at) - 1))


class OrderHeader(msgspec.Struct, frozen=True, gc=False):
    """The few fields of an order that landing needs; everything else stays undecoded."""

    order_id: str
    location_id: str
    created_at: datetime
    updated_at: datetime
    closed_at: datetime | None
    state: str  # OPEN, COMPLETED or CANCELED; anything else is never a sale
    total: int  # minor units
    currency: str
    #: Given by providers that keep business dates themselves; else it follows from `created_at`.
    business_date: date | None = None
    #: Whether the provider's own report counts it as a sale, so that its total is one of its partition's. None: when it is
    #: COMPLETED.
    sold: bool | None = None

    @property
    def counts(self) -> bool:
        """Whether its total is one of its partition's: `transactions.sql` makes rows of that total of it."""
        return self.state == "COMPLETED" if self.sold is None else self.sold


class Order(msgspec.Struct, frozen=True, gc=False):
    """One order exactly as received. `header` is None when it cannot be read; `problem` then says why."""

    raw: msgspec.Raw
    header: OrderHeader | None
    problem: str = ""


class Page(NamedTuple):
    """One page of orders; `last` tells that no more follow."""

    orders: Sequence[Order]
    last: bool


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a provider's client is built from."""

    provider: Provider
    connection: Connection
    credentials: Credentials
    transport: Transport


class Record(NamedTuple):
    """One object of a stream exactly as received, and what it is: `payment`, `refund`, `item`, `count`, `time_entry`.

    `location_id` is empty for what belongs to no one location. `at` is the instant that decides the business date, where a
    window may be of several: None for a record whose time cannot be read.
    """

    kind: str
    location_id: str
    raw: msgspec.Raw
    at: datetime | None = None


class Source(Protocol):
    """A provider's client for one connection. Calls raise the errors of `domain.errors`; they are safe to use from threads.

    The attributes, `pages`, `orders` and `supports_slicing` are what fetching orders in parallel and proving them takes.
    """

    max_locations_per_window: int
    by_business_date: bool
    """Whether windows by creation are business dates that the provider keeps, in whatever order their orders come."""
    verified_by: Literal["closed", "updated"]
    """The time by which the second query asks that proves a partition complete: not the one that landed it."""
    verification_is_whole: bool
    """Whether the orders of the second query are whole, as those of the first are, or no more than a header is made of."""

    def locations(self) -> list[Location]:
        """Return every location, inactive ones too."""

    def verify_access(self) -> str:
        """Prove that an empty answer means `no orders`; return the account's id, empty when the provider tells none.

        Raises:
            PermissionLostError: the credentials may no longer read orders.

        """

    def history_from(self, now: datetime) -> datetime | None:
        """Return the earliest instant whose orders can be asked for; None when there is no limit.

        What lies before cannot be had, which is not the same as empty.
        """

    def read(self, stream: str, window: Window) -> Iterator[Sequence[Record]]:
        """Yield the records of a window of a stream other than orders, a page at a time, following cursors to the end.

        A record may be yielded twice (pages shift); none is left out. A lost permission is never an empty answer.
        """

    def changes(self, stream: str, window: Window) -> Iterator[tuple[str, datetime]]:
        """Yield where and when (which instant decides the business date) the records that changed in a window happened.

        Only for daily streams: late edits make older business dates stale.
        """

    def pages(self, window: Window, time_field: TimeField) -> Iterator[Page]:
        """Yield the window's orders by created, closed or updated time, following cursors to the end.

        They come oldest first where the window supports slicing. An order may be yielded twice (pages shift, expired
        cursors restart); none is left out.
        """

    def orders(self, order_ids: Sequence[str]) -> list[Order]:
        """Return the orders of these ids as they are now, in any order; those that do not exist are left out."""

    def supports_slicing(self, window: Window, time_field: TimeField) -> bool:
        """Tell whether the window's pages come oldest first, so that its later part may be fetched by another thread."""

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

    def verify_callback(self, query: Mapping[str, str]) -> None:
        """Prove that the provider made this callback, where it signs them.

        Raises:
            ConfigurationError: it did not.

        """

    def exchange(self, callback: Mapping[str, str], redirect_uri: str, code_verifier: str | None = None) -> TokenSet:
        """Exchange the authorization code of a callback, its `code`, for tokens.

        The whole query of the callback is given: some providers name the account there and nowhere else.
        """

    def refresh(self, refresh_token: str) -> TokenSet:
        """Return new tokens.

        Raises:
            ReauthorizationNeededError: the refresh token is no longer accepted.

        """

    def revoke(self, access_token: str) -> None:
        """Revoke the authorisation at the provider."""

    def close(self) -> None:
        """Release connections."""


class MachineLogin(Protocol):
    """A machine client that signs in with its own credentials."""

    def sign_in(self) -> TokenSet:
        """Return a token; the provider may give the same one until it is about to expire.

        Raises:
            ReauthorizationNeededError: the credentials are no longer accepted.

        """

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
    """A delivery as it arrived: the names of `headers` in lower case, repeated ones joined by `, `; `query` as pairs."""

    headers: Mapping[str, str]
    body: bytes
    method: str = "POST"
    query: Sequence[tuple[str, str]] = ()


class WebhookEvent(NamedTuple):
    """The few fields of an event that the inbox needs.

    `account_id` is the provider's name for the account, or for a location where events name only that. `body` is what of the
    body is kept, where that is not all of it: of a delivery with several events, what is about this one. Where a provider gives
    no `event_id` one is made of all the rest, so that the same event, sent again, is the same one. One without a type is an
    `event`.
    """

    event_id: str
    event_type: str
    account_id: str
    occurred_at: datetime | None
    body: bytes | None = None


class Erasure(NamedTuple):
    """Whose data a person asked to be forgotten: the provider's ids. Empty everywhere: everything of the account."""

    customer_ids: tuple[str, ...] = ()
    order_ids: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()  # e-mail addresses, phone numbers: whatever was given to find them by


class Invalidation(NamedTuple):
    """What an event makes stale.

    `sold` are the orders it touches: where, and when each was created, which is what its business date follows from.
    `days` are business dates that the provider itself names, with the location. `streams` names what else is stale:
    for a daily stream where and when (the instant that its business date follows from), else no more than the name.
    `deleted` are orders, by their ids, that there are no more: where they were is known from what is stored.
    `erase` is what a person asked to be forgotten. `locations` asks for the connection's locations again; `revoked` says that the account was disconnected at the
    provider; `nothing` is why there is nothing to be done, and empty when there is something.
    """

    sold: frozenset[tuple[str, datetime]] = frozenset()
    days: frozenset[tuple[str, date]] = frozenset()
    streams: frozenset[tuple[str, str, datetime | None]] = frozenset()  # stream, location, instant
    erase: Erasure | None = None
    locations: bool = False
    revoked: bool = False
    nothing: str = ""
    deleted: frozenset[str] = frozenset()


class WebhookSource(Protocol):
    """A provider's webhooks: what it signs and what its events mean. Safe to use from threads."""

    refused_status: int
    """The status that the provider expects for a signature that does not fit."""

    def verify(self, request: WebhookRequest) -> None:
        """Prove in constant time that the provider sent this, and not too long ago if it says when.

        By a signature over the body; where there is none, by the secret that the provider sends with it.

        Raises:
            WebhookRefusedError: it cannot be proved.

        """

    def read(self, request: WebhookRequest) -> Sequence[WebhookEvent]:
        """Read the events' own fields: one, or as many as a delivery has, of one account or of several.

        Raises:
            WebhookRefusedError: it is not an event.

        """

    def affected(self, events: Sequence[tuple[str, bytes]], source: Source) -> list[Invalidation]:
        """Say what each event (its type and body, of one connection) makes stale, in the order given.

        Many at once, so that a storm costs few calls: what the events only name is fetched through `source` together.
        An event that cannot be read, or of an object that is gone, is `nothing`; it does not lose the others.
        Raises what `Source.orders` does.
        """


class Handshake(NamedTuple):
    """The answer to a question by which a provider sees whether an address takes its webhooks.

    `answer` is the text that is sent back, with status 200. `tell` is what a person must do with it, for the log of the gateway:
    a code that the provider's own pages ask for.
    """

    answer: bytes = b""
    tell: str = ""


@runtime_checkable
class WebhookHandshake(Protocol):
    """Webhooks of a provider that asks an address whether it takes them, before it sends any; the same object."""

    def handshake(self, request: WebhookRequest) -> Handshake | None:
        """Return the answer when this is the question, by `POST` or `GET`, and None when it is an event.

        Anybody may ask: nothing may be told that is secret.
        """


@dataclass(frozen=True, slots=True)
class WebhookContext:
    """What a provider's webhooks are built from: the address as registered there, and the key it signs with."""

    provider: Provider
    notification_url: str
    signature_key: str = field(repr=False)


#: What stands behind each reference of a `Provider`.
_PROTOCOLS: Mapping[str, type] = {
    "source": Source,
    "oauth": OAuthProvider,
    "login": MachineLogin,
    "webhooks": WebhookSource,
}


def members_of(protocol: type) -> set[str]:
    """Return the names of the methods and attributes of a protocol."""
    return {name for name in (*vars(protocol), *protocol.__annotations__) if not name.startswith("_")}
