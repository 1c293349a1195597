"""Shopify as a Dagster resource, for an analyst's own assets. The only file here that knows Dagster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flux_pipelines.providers.resource import ProviderResource

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from flux_pipelines.providers.shopify.client import ShopifyClient


class ShopifyResource(ProviderResource):
    """Shopify's API, through the same limiter, retries and audit as everything else; it holds no secret.

    An asset of your own takes it as an argument, `shopify: ShopifyResource`, and opens a connection's client with
    `with shopify.client("shopify:acme") as client`: see docs/own-assets.md.
    """

    if TYPE_CHECKING:

        def client(self, connection: str = "") -> AbstractContextManager[ShopifyClient]:  # type: ignore[override]
            """Open a connection's client for a `with` block, as `ProviderResource.client` does."""


RESOURCE = ShopifyResource()
