"""Connecting to a sandbox's merchants through the sandbox's own OAuth, without a browser."""

from __future__ import annotations

import secrets as random_secrets
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec

from flux_pipelines.connect.accounts import add_with_secrets, connect_with_code
from flux_pipelines.domain.addresses import is_loopback
from flux_pipelines.domain.connection import Connection, split_key
from flux_pipelines.domain.errors import BadResponseError, ConfigurationError
from flux_pipelines.providers.apps import address_of
from flux_pipelines.providers.base import Location, OAuthProvider, Provider
from flux_pipelines.providers.registry import provider as provider_named

if TYPE_CHECKING:
    from flux_pipelines.runtime import Runtime
    from flux_pipelines.transport.client import ApiClient


class _Registration(msgspec.Struct):
    settings: dict[str, Any]


class _SandboxApp(msgspec.Struct):
    client_id: str
    client_secret: str
    apps: dict[str, _Registration] = {}


class _Credentials(msgspec.Struct):
    """What a sandbox gives a machine client of one of its merchants."""

    secrets: dict[str, str]
    settings: dict[str, Any] = {}


class _SandboxWorld(msgspec.Struct):
    end_day: date


def sandbox_last_day(runtime: Runtime, url: str) -> date:
    """Return the last business date of a sandbox's world: over at every location."""
    browser = runtime.transport.client(
        provider="sandbox", connection="", base_url=url, limits=(), credentials=None, headers={}
    )
    answer = browser.request(
        "GET",
        "/sandbox/merchants",
        idempotent=True,
        auth=False,
        decode=lambda body: msgspec.json.decode(body, type=_SandboxWorld),
    )
    return answer.value.end_day


def connect_to_sandbox(
    runtime: Runtime,
    key: str,
    *,
    tenant: str,
    url: str,
    merchant: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[Connection, list[Location]]:
    """Connect to a sandbox's merchant, without a browser: through the sandbox's own OAuth where the provider has one.

    Args:
        runtime: the opened rooms.
        key: the connection's name.
        tenant: the customer of Flux.
        url: where the sandbox answers; it must be on this machine.
        merchant: which merchant; by default the one named like the connection, else one that is free.
        settings: settings beside `base_url`.

    Raises:
        ConfigurationError: it is not a sandbox on this machine, or the name cannot be used.
        FluxError: the sandbox did not authorise it, or what it gave does not work.

    """
    spec = provider_named(split_key(key)[0])
    base_url = url.rstrip("/")
    if not is_loopback(urlsplit(base_url).hostname or ""):
        raise ConfigurationError(
            "the sandbox must be on this machine",
            connection=key,
            next_step="Connect a real account with `--secrets -`.",
        )
    handle = merchant or split_key(key)[1]
    browser = runtime.transport.client(
        provider=spec.name, connection=key, base_url=base_url, limits=(), credentials=None, headers={}
    )
    try:
        return _connect(runtime, spec, browser, key, tenant, base_url, handle, dict(settings or {}))
    finally:
        browser.close()


def _connect(
    runtime: Runtime,
    spec: Provider,
    browser: ApiClient,
    key: str,
    tenant: str,
    url: str,
    handle: str,
    settings: dict[str, Any],
) -> tuple[Connection, list[Location]]:
    answer = browser.request("GET", "/sandbox/app", idempotent=True, auth=False)
    try:
        app = msgspec.json.decode(answer.content, type=_SandboxApp)
    except msgspec.DecodeError as problem:
        raise ConfigurationError(f"{url} is not a Flux sandbox", connection=key) from problem
    if spec.oauth is None:
        answer = browser.request(
            "GET",
            "/sandbox/credentials",
            params={"provider": spec.name, "merchant": handle},
            idempotent=True,
            auth=False,
        )
        given = msgspec.json.decode(answer.content, type=_Credentials)
        settings = {**given.settings, **settings, "base_url": f"{url}/{spec.name}"}
        return add_with_secrets(runtime, key, tenant=tenant, settings=settings, secrets=given.secrets)
    registered = app.apps.get(spec.name)
    template = str(registered.settings.get("base_url", url)) if registered else url
    base_url = address_of(spec, template, {setting.name: handle for setting in spec.connect_settings})
    oauth = runtime.oauth(
        spec, base_url=base_url, client_id=app.client_id, client_secret=app.client_secret, connection=key
    )
    try:
        code, redirect_uri = _agree(browser, oauth, key, url, handle)
        return connect_with_code(
            runtime,
            key,
            oauth,
            tenant=tenant,
            code=code,
            redirect_uri=redirect_uri,
            settings={**settings, "base_url": base_url},
            secrets={"client_id": app.client_id, "client_secret": app.client_secret},
        )
    finally:
        oauth.close()


def _agree(browser: ApiClient, oauth: OAuthProvider, key: str, url: str, handle: str) -> tuple[str, str]:
    """Agree on the consent page in a person's place; return the authorization code and where it was sent to."""
    redirect_uri = f"{url}/sandbox/callback"
    state = random_secrets.token_urlsafe(32)
    consent = urlsplit(oauth.authorize_url(redirect_uri, state))
    query = {k: v[0] for k, v in parse_qs(consent.query).items()}
    query["merchant"] = handle
    answer = browser.request(
        "GET", f"{consent.path}?{urlencode(query)}", idempotent=True, auth=False, expect="redirect"
    )
    returned = {k: v[0] for k, v in parse_qs(urlsplit(answer.headers.get("location", "")).query).items()}
    if returned.get("state") != state or "code" not in returned:
        raise BadResponseError("the sandbox's consent page gave no authorization code", connection=key)
    oauth.verify_callback(returned)
    return returned["code"], redirect_uri
