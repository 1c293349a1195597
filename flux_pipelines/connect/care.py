"""What people do with a connection that exists: pause it, resume it, try whether it works."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import ConfigurationError

if TYPE_CHECKING:
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


def try_out(runtime: Runtime, key: str) -> list[Location]:
    """Call the provider with a connection's credentials; return its locations, which are remembered.

    Raises:
        UnknownConnectionError: there is none of that name.
        FluxError: it does not work; the error says why.

    """
    connection = runtime.state.connections.get(key)
    source = runtime.source(connection)
    try:
        source.confirm_access()
        return runtime.refresh_locations(connection, source)
    finally:
        source.close()
