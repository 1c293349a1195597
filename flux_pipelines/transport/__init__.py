"""The one way out to other systems: limit, breaker, retry, authentication, audit. No Dagster.

The HTTP library is loaded with the first client, so importing this package costs nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.transport.audit import AuditSink, CallRecord, Stats, metered
from flux_pipelines.transport.breaker import Breaker, BreakerPolicy, held_back
from flux_pipelines.transport.errors import AnsweredError, RefusedError, TransportClosedError
from flux_pipelines.transport.limits import Concurrent, Grant, Limit, RateBudget
from flux_pipelines.transport.redact import guard_http_logs
from flux_pipelines.transport.retry import RetryPolicy
from flux_pipelines.transport.shared_state import PostgresLimitStore, SqliteLimitStore, StateStore

if TYPE_CHECKING:
    import ssl

    from flux_pipelines.domain.credentials import Credentials
    from flux_pipelines.transport.client import ApiClient, Timeout

__all__ = [
    "AnsweredError",
    "AuditSink",
    "BreakerPolicy",
    "CallRecord",
    "Grant",
    "Limit",
    "PostgresLimitStore",
    "RateBudget",
    "RefusedError",
    "RetryPolicy",
    "SqliteLimitStore",
    "StateStore",
    "Stats",
    "Transport",
    "TransportClosedError",
    "metered",
]


class Transport:
    """Makes the API clients of a process; holds the limiter, the breakers and the audit they share.

    Args:
        limit_store: where limits and breakers are kept; closed with the transport.
        audit: gets a record of every attempt.
        user_agent: names this software to providers.
        retry_policy: how often and how long a request is tried.
        breaker_policy: when calls to a failing provider are refused.
        timeout: seconds for each phase of an attempt.
        max_body_bytes: larger answers are refused, so that a wrong one cannot fill the memory.
        give_up_after: longest wait for the rate limit in seconds; None waits as long as it takes.

    """

    def __init__(
        self,
        limit_store: StateStore,
        audit: AuditSink,
        *,
        user_agent: str,
        retry_policy: RetryPolicy | None = None,
        breaker_policy: BreakerPolicy | None = None,
        timeout: Timeout | None = None,
        max_body_bytes: int = 256 * 1024 * 1024,
        give_up_after: float | None = 900.0,
    ) -> None:
        self._store = limit_store
        self._audit = audit
        self._user_agent = user_agent
        self._retry_policy = retry_policy or RetryPolicy()
        self._breaker_policy = breaker_policy or BreakerPolicy()
        self._timeout = timeout
        self._max_body_bytes = max_body_bytes
        self._give_up_after = give_up_after
        self._closing = threading.Event()
        self._budget = RateBudget(limit_store, sleep=self._sleep)
        self._places: dict[tuple[str, str], threading.Semaphore] = {}
        self._clients: list[ApiClient] = []
        self._mutex = threading.Lock()

    def _place(self, provider: str, connection: str, limit: Concurrent) -> threading.Semaphore:
        with self._mutex:
            key = (provider, connection if limit.per == "connection" else "")
            return self._places.setdefault(key, threading.Semaphore(limit.requests))

    def client(
        self,
        *,
        provider: str,
        connection: str,
        base_url: str,
        limits: Sequence[Limit],
        credentials: Credentials | None,
        headers: Mapping[str, str],
        authorize: Callable[[str], Mapping[str, str]] | None = None,
        concurrency: Sequence[Concurrent] = (),
    ) -> ApiClient:
        """Make the client of one connection.

        Args:
            provider: the provider's name.
            connection: the connection's key; empty when there is none yet.
            base_url: where the API answers, with `http://` or `https://`.
            limits: what the provider allows: of each budget key, of the connection or of the app; together they all hold.
            credentials: where tokens come from; None for calls without one.
            headers: sent with every request.
            authorize: makes headers of a token; default `Authorization: Bearer`.
            concurrency: how many requests may be under way at a time; clients of one process share the places.

        Raises:
            ConfigurationError: the base URL is not an HTTP address.

        """
        import httpx

        from flux_pipelines.transport.client import ApiClient, Timeout, bearer

        try:
            parsed = httpx.URL(base_url)
        except httpx.InvalidURL:
            parsed = httpx.URL()
        if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.userinfo or parsed.query:
            raise ConfigurationError(
                "`base_url` is not the address of an API",
                connection=connection or None,
                next_step="Write it as https://host or https://host/path, without a user, a password or a query.",
            )
        guard_http_logs()
        client = ApiClient(
            provider=provider,
            connection=connection,
            base_url=base_url,
            limits=limits,
            places=[self._place(provider, connection, one) for one in sorted(concurrency, key=lambda one: one.per)],
            credentials=credentials,
            headers={"User-Agent": self._user_agent, "Accept": "application/json", **headers},
            budget=self._budget,
            breaker=Breaker(
                self._store,
                f"{provider}/{connection}",
                connection=connection or None,
                policy=self._breaker_policy,
            ),
            audit=self._audit,
            retry_policy=self._retry_policy,
            timeout=self._timeout or Timeout(),
            authorize=authorize or bearer,
            # Loading the certificates takes longer than a call; without TLS they are of no use.
            verify=self._tls if parsed.scheme == "https" else False,
            max_body_bytes=self._max_body_bytes,
            give_up_after=self._give_up_after,
            sleep=self._sleep,
        )
        with self._mutex:
            self._clients.append(client)
        return client

    def forget_failures(self, provider: str, connection: str) -> None:
        """Close a connection's breaker: whoever answers from now on is not the one that failed."""
        Breaker(self._store, f"{provider}/{connection}").succeeded()

    def held_back(self, connections: Sequence[str]) -> dict[str, float]:
        """Return the connections whose breaker is open, each with the seconds until a call is let through to try.

        Args:
            connections: their keys (`square:acme`).

        """
        names = {f"{key.partition(':')[0]}/{key}": key for key in connections}
        return {names[name]: seconds for name, seconds in held_back(self._store, list(names)).items()}

    def close(self) -> None:
        """Wake every waiting call with an error, and release connections."""
        self._closing.set()
        with self._mutex:
            clients, self._clients = self._clients, []
        for client in clients:
            client.close()
        self._store.close()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        import httpx

        context: Any = httpx.create_ssl_context()
        return context  # type: ignore[no-any-return]

    def _sleep(self, seconds: float) -> None:
        if self._closing.wait(seconds):
            raise TransportClosedError("this process is ending; a call that was waiting was given up")
