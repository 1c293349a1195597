"""Toast as a Dagster resource, for an analyst's own assets. The only file here that knows Dagster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flux_pipelines.providers.resource import ProviderResource

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from flux_pipelines.providers.toast.client import ToastClient


class ToastResource(ProviderResource):
    """Toast's API, through the same limiter, retries and audit as everything else; it holds no secret.

    An asset of your own takes it as an argument, `toast: ToastResource`, and opens a connection's client with
    `with toast.client("toast:acme") as client`: see docs/own-assets.md.
    """

    if TYPE_CHECKING:

        def client(self, connection: str = "") -> AbstractContextManager[ToastClient]:  # type: ignore[override]
            """Open a connection's client for a `with` block, as `ProviderResource.client` does."""


RESOURCE = ToastResource()
