"""What the providers' Dagster resources have in common. With their own `resource.py`, the only files here that know Dagster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

if TYPE_CHECKING:
    from flux_pipelines.domain.connection import Connection
    from flux_pipelines.providers.base import Source
    from flux_pipelines.runtime import Runtime


class ProviderResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """A provider's API, through the same limiter, retries and audit as everything else.

    It holds no secret: a connection's credentials are in the vault, and asked for when a client is opened.
    """

    connection: str = Field(
        default="", description="The connection that client() opens when none is named, such as square:acme."
    )

    @contextmanager
    def client(self, connection: str = "") -> Iterator[Source]:
        """Open a connection's client for a `with` block.

        Args:
            connection: the connection's key; by default the resource's own.

        Raises:
            UnknownConnectionError: there is no such connection.
            ReauthorizationNeededError: it waits to be reconnected.

        """
        from flux_pipelines.runtime import Runtime

        with (
            Runtime() as runtime,
            self.open(runtime, runtime.state.connections.get(connection or self.connection)) as source,
        ):
            yield source

    @contextmanager
    def open(self, runtime: Runtime, connection: Connection) -> Iterator[Source]:
        """Open a connection's client for a `with` block, in rooms that are open: the raw assets' way."""
        source = runtime.source(connection)
        try:
            yield source
        finally:
            source.close()
