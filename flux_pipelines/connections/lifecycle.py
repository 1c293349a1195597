"""What people do with a connection that exists: pause it, resume it, try it, ask for a sync of it, disconnect it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import ConfigurationError, FluxError, ReauthorizationNeededError

if TYPE_CHECKING:
    from datetime import date

    from flux_pipelines.providers.base import Location
    from flux_pipelines.runtime import Runtime


def pause(runtime: Runtime, key: str, *, by: str) -> Connection:
    """Stop syncing a connection; its credentials and history stay.

    Raises:
        UnknownConnectionError: there is none of that name.
        ConfigurationError: it is not active anyway: it waits to be reconnected.

    """
    connection = runtime.state.connections.get(key)
    if connection.status in ("needs_reauth", "disconnected"):
        raise ConfigurationError("it is not active: it waits to be reconnected", connection=key)
    if connection.status == "paused":
        return connection
    return runtime.state.connections.set_status(key, "paused", f"paused by {by}")


def resume(runtime: Runtime, key: str) -> Connection:
    """Sync a paused connection again.

    Raises:
        UnknownConnectionError: there is none of that name.
        ConfigurationError: it has no credentials that are accepted.

    """
    connection = runtime.state.connections.get(key)
    if connection.status in ("needs_reauth", "disconnected"):
        raise ConfigurationError(
            "it has no credentials that are accepted: resuming would not help",
            connection=key,
            next_step="Reconnect the account.",
        )
    if connection.status == "active":
        return connection
    return runtime.state.connections.set_status(key, "active", "")


def test_connection(runtime: Runtime, key: str) -> list[Location]:
    """Call the provider with a connection's credentials; return its locations, which are remembered.

    What comes of it is remembered: a test that failed is told with the connection's health.

    Raises:
        UnknownConnectionError: there is none of that name.
        FluxError: it does not work; the error says why.

    """
    connection = runtime.state.connections.get(key)
    try:
        source = runtime.source(connection)
        try:
            source.verify_access()
            locations = runtime.refresh_locations(connection, source)
        finally:
            source.close()
    except FluxError as problem:
        runtime.remember(key, "test", problem)
        raise
    runtime.remember(key, "test")
    return locations


def request_sync(runtime: Runtime, key: str, first: date, last: date, *, by: str, reason: str) -> int:
    """Ask for a sync of these business dates, both included; return the request's id, of the same one if that waits.

    Raises:
        UnknownConnectionError: there is none of that name.
        ConfigurationError: it is not active, so that nothing can be fetched.
        TooManyWaitingError: too many wait already, of this connection or in all.

    """
    connection = runtime.state.connections.get(key)
    if connection.status != "active":
        why = f" ({connection.status_reason})" if connection.status_reason else ""
        step = "Resume it first." if connection.status == "paused" else "Reconnect the account first."
        raise ConfigurationError(
            f"nothing can be fetched: it is {connection.status}{why}", connection=key, next_step=step
        )
    return runtime.state.sync_requests.add(key, first, last, by, reason, capped=True)


def disconnect(runtime: Runtime, key: str, *, by: str, forget_anyway: bool = False) -> bool:
    """Revoke a connection's authorisation at the provider and forget its credentials. Its history stays in the lake.

    Args:
        runtime: the opened rooms.
        key: the connection.
        by: who wants it, for its status.
        forget_anyway: forget the credentials without asking the provider, when it cannot be asked.

    Returns:
        Whether the provider has revoked it; False when it had nothing to revoke any more, or was not asked.

    Raises:
        ConfigurationError: it is disconnected already.
        FluxError: the provider could not revoke it; the connection is as it was.

    """
    connection = runtime.state.connections.get(key)
    if connection.status == "disconnected":
        raise ConfigurationError("it is disconnected already", connection=key)
    revoked = not forget_anyway and _revoke(runtime, connection)
    runtime.state.connections.disconnect(key, f"disconnected by {by}")
    return revoked


def _revoke(runtime: Runtime, connection: Connection) -> bool:
    """Revoke; False when there is nothing to revoke."""
    oauth = runtime.oauth_of(connection)
    if oauth is None:  # a token that a person made: only that person can take it back
        return False
    try:
        # Of one that has expired, a new one: an expired token may not be good enough to revoke with.
        token = runtime.token_manager(connection).token()
    except ReauthorizationNeededError:
        return False  # the provider has revoked it long ago
    else:
        oauth.revoke(token)
    finally:
        oauth.close()
    return True
