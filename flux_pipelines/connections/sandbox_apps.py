"""Registering Flux's app at a sandbox: what a person does in each provider's developer console, in one step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from flux_pipelines.domain.addresses import is_loopback
from flux_pipelines.domain.decoding import decode
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.providers.registry import all_providers

if TYPE_CHECKING:
    from flux_pipelines.runtime import Runtime


class _Registration(msgspec.Struct):
    settings: dict[str, Any]
    secrets: dict[str, str]


class _SandboxApps(msgspec.Struct):
    apps: dict[str, _Registration]


def register_at_sandbox(runtime: Runtime, url: str, gateway_url: str) -> list[str]:
    """Store the apps of a sandbox as Flux's own and let its webhooks come to a gateway.

    Args:
        runtime: the opened rooms.
        url: where the sandbox answers.
        gateway_url: the public address of the gateway.

    Returns:
        The registrations that were left alone because they are not a sandbox's.

    """
    base_url = url.rstrip("/")
    sandbox = runtime.transport.client(
        provider="sandbox", connection="", base_url=base_url, limits=(), credentials=None, headers={}
    )
    answer = sandbox.request("GET", "/sandbox/app", idempotent=True, auth=False)
    try:
        found = decode(answer.content, _SandboxApps).apps
    except msgspec.DecodeError as problem:
        raise ConfigurationError(f"{base_url} is not a Flux sandbox") from problem
    left: list[str] = []
    for name, registration in found.items():
        known = runtime.state.apps.get(name)
        secrets = runtime.state.apps.secrets(name, purpose="see whether the app is a sandbox's") if known else {}
        if known is not None and not _is_sandboxes(known.settings, secrets, registration):
            left.append(name)
            continue
        spec = all_providers().get(name)
        settings = dict(registration.settings)
        if spec is not None and spec.webhooks is not None:
            settings["notification_url"] = f"{gateway_url}/webhooks/{name}"
        # First: what is subscribed to may be asked for at once, and the gateway remembers whom it did not know.
        runtime.state.apps.put(name, settings, registration.secrets)
        if spec is not None and spec.webhooks is not None:
            sandbox.request(
                "POST",
                "/sandbox/webhooks",
                json={
                    "provider": name,
                    "url": settings["notification_url"],
                    "signature_key": registration.secrets.get("webhook_signature_key")
                    or registration.secrets[spec.webhooks_signed_with],
                },
                idempotent=True,
                auth=False,
            )
    return left


def _is_sandboxes(settings: Mapping[str, Any], secrets: Mapping[str, str], registration: _Registration) -> bool:
    """Tell whether an app is one that a sandbox has given out: at this machine, and with a sandbox's own secrets."""
    addresses = [str(settings[name]) for name in ("base_url", "issuer") if settings.get(name)]
    local = bool(addresses) and all(is_loopback(urlsplit(address).hostname or "") for address in addresses)
    return local and any(secrets.get(name) == value for name, value in registration.secrets.items())
