"""Shopify as a Dagster resource, for an analyst's own assets. The only file here that knows Dagster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

if TYPE_CHECKING:
    from flux_pipelines.providers.shopify.client import ShopifyClient


class ShopifyResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Shopify's API, through the same limiter, retries and audit as everything else.

    It holds no secret: a connection's credentials are in the vault, and asked for when a client is opened.

        @dg.asset
        def store_names(shopify: ShopifyResource) -> list[str]:
            with shopify.client("shopify:acme") as client:
                return [location.name for location in client.locations()]
    """

    connection: str = Field(
        default="", description="The connection that `client()` opens when none is named, for example `shopify:acme`."
    )

    @contextmanager
    def client(self, connection: str = "") -> Iterator[ShopifyClient]:
        """Open a connection's client for a `with` block.

        Args:
            connection: the connection's key; by default the resource's own.

        Raises:
            UnknownConnectionError: there is no such connection.
            ReauthorizationNeededError: it waits to be reconnected.

        """
        from flux_pipelines.runtime import Runtime

        with Runtime() as runtime:
            source = runtime.source(runtime.state.connections.get(connection or self.connection))
            try:
                yield source  # type: ignore[misc]  # a Shopify connection's source is Shopify's client
            finally:
                source.close()


RESOURCE = ShopifyResource()
