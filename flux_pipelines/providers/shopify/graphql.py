"""Shopify's Admin GraphQL API: one call, what it cost, and what its errors mean.

Most failures come with HTTP status 200 and `errors` in the body. Cost is a leaky bucket for each app and shop; every
answer tells how full it is, whichever process spent it, so all processes see each other through it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from flux_pipelines.domain.decoding import decode, decoder
from flux_pipelines.domain.errors import (
    BadResponseError,
    FluxError,
    PermissionLostError,
    ProviderUnavailableError,
    RateLimitedError,
)
from flux_pipelines.providers.base import RateLimit, SourceContext
from flux_pipelines.providers.shopify.queries import operation
from flux_pipelines.providers.shopify.shops import address
from flux_pipelines.transport import AnsweredError, RefusedError, Stats

_log = logging.getLogger(__name__)
T = TypeVar("T")

TOO_COSTLY: Final = "MAX_COST_EXCEEDED"
_DENIED = frozenset({"ACCESS_DENIED", "SHOP_INACTIVE"})
_LONGEST_WAIT = 120.0
#: What a status means that Shopify alone uses so (https://shopify.dev/docs/api/usage/response-codes).
_STATUSES: Mapping[int, tuple[type[FluxError], str, str]] = {
    402: (
        PermissionLostError,
        "the shop is frozen (402): its bill at Shopify is not paid",
        "The shop's owner settles the bill; then run the failed partitions again.",
    ),
    423: (
        PermissionLostError,
        "the shop is locked (423): Shopify has closed its API",
        "The shop's owner asks Shopify's support to unlock it; then run the failed partitions again.",
    ),
    404: (
        PermissionLostError,
        "there is no such shop (404)",
        "Check the connection's `shop`: a renamed or closed shop answers so.",
    ),
    430: (
        ProviderUnavailableError,
        "Shopify takes the calls for an attack (430)",
        "Run the failed partitions again later.",
    ),
}


class _Throttle(msgspec.Struct):
    maximumAvailable: float
    currentlyAvailable: float
    restoreRate: float


class Cost(msgspec.Struct):
    """What a query cost, and how full the bucket is. `actualQueryCost` is None for a query that was not run."""

    requestedQueryCost: float | None = None
    actualQueryCost: float | None = None
    throttleStatus: _Throttle | None = None


class _Extensions(msgspec.Struct):
    cost: Cost | None = None


class _ErrorExtensions(msgspec.Struct):
    code: str = ""


class _Error(msgspec.Struct):
    message: str = ""
    extensions: _ErrorExtensions | None = None

    @property
    def code(self) -> str:
        return self.extensions.code if self.extensions is not None else ""


class _Envelope(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw()
    errors: list[_Error] | str = []
    extensions: _Extensions | None = None


_decode_envelope = decoder(_Envelope)


class Bucket:
    """How many points there are to spend, as Shopify last told. Threads reserve before they send.

    Args:
        points_per_second: the most to spend a second; 0 for no limit of our own.
        pause: waits the given seconds.

    """

    def __init__(self, points_per_second: int, pause: Callable[[float], None]) -> None:
        self._own_rate = float(points_per_second)
        self._own_next = 0.0
        self._pause = pause
        self._lock = threading.Lock()
        self._status: _Throttle | None = None
        self._at = 0.0  # when Shopify told it
        self._reserved = 0.0  # by calls that are waiting or under way
        self._costs: dict[str, float] = {}

    def reserve(self, name: str) -> float:
        """Wait until the bucket should hold what the operation asked for the last time; return that, to be released."""
        with self._lock:
            cost, now, wait = self._costs.get(name, 0.0), time.monotonic(), 0.0
            status = self._status
            if status is not None:
                cost = min(cost, status.maximumAvailable)
                level = status.currentlyAvailable + (now - self._at) * status.restoreRate
                missing = cost + self._reserved - min(level, status.maximumAvailable)
                wait = max(0.0, missing / status.restoreRate)
            if self._own_rate:
                wait = max(wait, self._own_next - now)
                self._own_next = max(self._own_next, now) + cost / self._own_rate
            self._reserved += cost
        if wait > 0:
            self._pause(min(wait, _LONGEST_WAIT))
        return cost

    def release(self, reserved: float) -> None:
        """Give back a reservation: what was spent of it, Shopify has told."""
        with self._lock:
            self._reserved -= reserved

    def told(self, name: str, cost: Cost) -> None:
        """Take over what an answer tells."""
        with self._lock:
            if cost.requestedQueryCost:
                self._costs[name] = cost.requestedQueryCost
            if cost.throttleStatus is not None and cost.throttleStatus.restoreRate > 0:
                self._status, self._at = cost.throttleStatus, time.monotonic()


class GraphQL:
    """One connection's calls to the Admin API. Safe to use from threads."""

    def __init__(self, context: SourceContext) -> None:
        settings = context.provider.settings_of(context.connection)
        self.connection = context.connection.key
        self._version = context.provider.api_version
        self._context = context
        shop = str(settings["shop"]) or context.connection.account_id
        self.api = context.transport.client(
            provider=context.provider.name,
            connection=self.connection,
            base_url=address(str(settings["base_url"]), shop, connection=self.connection),
            limits=context.provider.rate_limits,
            credentials=context.credentials,
            headers={},
            authorize=lambda token: {"X-Shopify-Access-Token": token},
        )
        self._path = f"/admin/api/{self._version}/graphql.json"
        self._bucket = Bucket(int(settings["points_per_second"]), self.api.pause)
        self._answered: set[str] = set()

    @property
    def versions_answered(self) -> frozenset[str]:
        """Every API version that has answered so far; others than the pinned one mean that it is no longer supported."""
        return frozenset(self._answered)

    @property
    def stats(self) -> Stats:
        """What the calls have cost so far."""
        return self.api.stats

    def run(self, name: str, variables: Mapping[str, Any], kind: type[T], *, idempotent: bool = True) -> tuple[T, Cost]:
        """Send an operation of `queries/` and return its `data`, decoded, with what it cost.

        Args:
            name: the operation's file.
            variables: its variables.
            kind: what `data` is decoded as.
            idempotent: False for what must not be sent twice.

        Raises:
            PermissionLostError: a field may not be read (any more), or the shop is frozen, locked or gone.
            RateLimitedError: throttled to the end.
            RefusedError: the query is refused; code `MAX_COST_EXCEEDED` when it could cost more than a query may.
            FluxError: what `ApiClient.request` raises.

        """

        def read(body: bytes) -> tuple[T, Cost]:
            envelope = _decode_envelope(body)
            cost = (envelope.extensions.cost if envelope.extensions is not None else None) or Cost()
            self._bucket.told(name, cost)
            if envelope.errors or bytes(envelope.data) in (b"", b"null"):
                raise _problem(envelope, cost)
            return decode(envelope.data, kind), cost

        reserved = self._bucket.reserve(name)
        try:
            answer = self.api.request(
                "POST",
                self._path,
                json={"query": operation(name), "variables": dict(variables)},
                idempotent=idempotent,
                decode=read,
            )
        except RefusedError as refused:
            known = _STATUSES.get(refused.status)
            if known is None:
                raise
            error, what, next_step = known
            raise error(what, connection=self.connection, next_step=next_step) from refused
        finally:
            self._bucket.release(reserved)
        self._note_version(answer.headers.get("x-shopify-api-version", ""))
        return answer.value

    def download(self, url: str) -> bytes:
        """Fetch a file that Shopify made; its address is signed and needs no token.

        Raises:
            FluxError: what `ApiClient.request` raises; RefusedError when the address is no longer good.

        """
        scheme, _, rest = url.partition("://")
        host, slash, path = rest.partition("/")
        files = self._context.transport.client(
            provider=self._context.provider.name,
            connection=self.connection,
            base_url=f"{scheme}://{host}",
            limits=(RateLimit(100, 1.0),),
            credentials=None,
            headers={"Accept": "*/*"},
        )
        try:
            return files.request("GET", slash + path, idempotent=True, auth=False, expect="bytes").content
        finally:
            files.close()

    def close(self) -> None:
        """Release the HTTP connections."""
        self.api.close()

    def _note_version(self, version: str) -> None:
        if not version or version in self._answered:
            return
        self._answered.add(version)
        if version != self._version:
            _log.warning(
                "%s: Shopify answers with version %s instead of %s, which it no longer supports: update Flux",
                self.connection,
                version,
                self._version,
            )


def _problem(envelope: _Envelope, cost: Cost) -> AnsweredError:
    """Return what the errors of an answer mean."""
    errors = [_Error(envelope.errors)] if isinstance(envelope.errors, str) else envelope.errors
    codes = tuple(dict.fromkeys(error.code for error in errors if error.code))
    said = "; ".join(dict.fromkeys(error.message for error in errors if error.message)) or "neither data nor errors"
    what = f"{', '.join(codes)}: {said}" if codes else said
    if "THROTTLED" in codes:
        return AnsweredError(RateLimitedError, what, codes=codes, again=True, retry_after=_until_affordable(cost))
    if TOO_COSTLY in codes:
        return AnsweredError(RefusedError, what, codes=codes)
    if not _DENIED.isdisjoint(codes):
        return AnsweredError(PermissionLostError, what, codes=codes)
    if "INTERNAL_SERVER_ERROR" in codes:
        return AnsweredError(ProviderUnavailableError, what, codes=codes, again=True, failure=True)
    if not errors:
        return AnsweredError(BadResponseError, what, again=True, failure=True)
    return AnsweredError(RefusedError, what, codes=codes)


def _until_affordable(cost: Cost) -> float | None:
    """Return the seconds until the bucket holds what the query asks for."""
    status = cost.throttleStatus
    if status is None or status.restoreRate <= 0 or cost.requestedQueryCost is None:
        return None
    missing = min(cost.requestedQueryCost, status.maximumAvailable) - status.currentlyAvailable
    return max(0.0, missing / status.restoreRate)
