"""Connecting an account: check what was given, store it encrypted, prove that it works. No Dagster."""

from __future__ import annotations

import secrets as random_secrets
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec

from flux_pipelines.domain.connection import Connection, split_key
from flux_pipelines.domain.errors import BadResponseError, ConfigurationError, FluxError
from flux_pipelines.providers.base import Location, Provider, TokenSet
from flux_pipelines.providers.registry import provider as provider_named

if TYPE_CHECKING:
    from flux_pipelines.runtime import Runtime


def parse_settings(key: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check a connection's settings against its provider's declaration; return them as given.

    Raises:
        ConfigurationError: an unknown name, a wrong type, or a value out of range.

    """
    spec = provider_named(split_key(key)[0])
    known = {setting.name: setting for setting in spec.settings}
    for name, value in given.items():
        if name not in known:
            raise ConfigurationError(
                f"{spec.title} has no setting {name!r}", connection=key, next_step=f"Known: {', '.join(known)}."
            )
        wanted = type(known[name].default)
        if isinstance(value, bool) or not isinstance(value, wanted):
            raise ConfigurationError(
                f"the setting {name} must be {'a whole number' if wanted is int else 'a text'}", connection=key
            )
        if name == "cutoff_hour" and value not in range(24):
            raise ConfigurationError("cutoff_hour must be 0 to 23", connection=key)
        if name == "requests_per_minute" and int(value) < 1:
            raise ConfigurationError("requests_per_minute must be at least 1", connection=key)
        if name == "base_url" and urlsplit(str(value)).scheme not in ("http", "https"):
            raise ConfigurationError("base_url must start with https:// or http://", connection=key)
    return dict(given)


def _check_secrets(spec: Provider, key: str, given: Mapping[str, Any]) -> dict[str, str]:
    ways = " or ".join("{" + ", ".join(way) + "}" for way in spec.secrets)
    for way in spec.secrets:
        if set(way) == set(given):
            if all(isinstance(value, str) and value for value in given.values()):
                return {name: str(given[name]) for name in way}
            raise ConfigurationError("every secret must be a text that is not empty", connection=key)
    raise ConfigurationError(
        f"the secrets {{{', '.join(sorted(given))}}} are not a complete way to authenticate",
        connection=key,
        next_step=f"Give {ways}.",
    )


def add_with_secrets(
    runtime: Runtime, key: str, *, tenant: str, settings: Mapping[str, Any], secrets: Mapping[str, Any]
) -> tuple[Connection, list[Location]]:
    """Add a connection with secrets that a person already has. Nothing is kept if they do not work.

    A connection that waits to be reconnected is given the new secrets and keeps its settings and history.
    """
    spec = provider_named(split_key(key)[0])
    checked = _check_secrets(spec, key, secrets)
    return _store_and_prove(runtime, key, tenant=tenant, account_id="", settings=settings, secrets=checked)


def reconfigure(
    runtime: Runtime, key: str, *, settings: Mapping[str, Any], secrets: Mapping[str, Any] | None
) -> tuple[Connection, list[Location]]:
    """Change a connection's settings and, if given, its secrets; everything is put back if it does not work then.

    Args:
        runtime: the opened rooms.
        key: the connection.
        settings: checked settings to change; None takes one back to its default.
        secrets: a complete new way to authenticate, or None to keep the present one.

    """
    before = runtime.state.connections.get(key)
    kept = runtime.state.secrets.get(key, purpose="change the connection")
    unknown = set(settings) - {setting.name for setting in provider_named(before.provider).settings}
    if unknown:
        raise ConfigurationError(f"there is no setting {sorted(unknown)[0]!r}", connection=key)
    checked = None if secrets is None else _check_secrets(provider_named(before.provider), key, secrets)
    runtime.state.connections.update_settings(key, settings)
    try:
        if checked is not None:
            runtime.state.secrets.put(key, checked)
        return runtime.state.connections.get(key), _prove(runtime, key)
    except BaseException:  # an interrupt too
        undo = {name: before.settings.get(name) for name in settings}
        runtime.state.connections.update_settings(key, undo)
        if checked is not None:
            runtime.state.secrets.put(key, kept)
        runtime.state.connections.set_status(key, before.status, before.status_reason)
        raise


def _prove(runtime: Runtime, key: str) -> list[Location]:
    """Use a connection's credentials once: for its permission and its locations."""
    connection = runtime.state.connections.get(key)
    source = runtime.source(connection)
    try:
        source.confirm_access()
        return runtime.refresh_locations(connection, source)
    finally:
        source.close()


def _store_and_prove(
    runtime: Runtime,
    key: str,
    *,
    tenant: str,
    account_id: str,
    settings: Mapping[str, Any],
    secrets: Mapping[str, str],
    tokens: TokenSet | None = None,
) -> tuple[Connection, list[Location]]:
    connections = runtime.state.connections
    previous = next((c for c in connections.list() if c.key == key), None)
    if previous is not None and previous.status != "needs_reauth":
        raise ConfigurationError(
            "there is a connection of that name already",
            connection=key,
            next_step=f"Choose another name, or remove it first: `flux connections remove {key}`.",
        )
    if previous is not None and account_id and previous.account_id and account_id != previous.account_id:
        # Its history is the other account's: two merchants' books would become one.
        raise ConfigurationError(
            f"this authorisation is for another account ({account_id}) than the connection's ({previous.account_id})",
            connection=key,
            next_step="Authorise the same account, or connect this one under a name of its own.",
        )
    if previous is None:
        connections.add(Connection(key=key, tenant=tenant, account_id=account_id, settings=dict(settings)))
    else:
        connections.update_settings(key, {**previous.settings, **settings})
        connections.set_status(key, "active", "")
    try:
        stored = dict(secrets)
        if tokens is not None:
            stored |= _token_secrets(tokens)
        runtime.state.secrets.put(key, stored)
        locations = _prove(runtime, key)
    except BaseException as problem:  # an interrupt too: nothing half-connected is left behind
        if previous is None:
            connections.remove(key)
        else:
            reason = problem.what if isinstance(problem, FluxError) else "reconnecting it was interrupted"
            connections.set_status(key, "needs_reauth", reason)
        raise
    return connections.get(key), locations


def _token_secrets(tokens: TokenSet) -> dict[str, str]:
    stored = {"access_token": tokens.access_token}
    if tokens.refresh_token:
        stored["refresh_token"] = tokens.refresh_token
    if tokens.expires_at is not None:
        stored["expires_at"] = tokens.expires_at.isoformat()
    return stored


class _SandboxApp(msgspec.Struct):
    client_id: str
    client_secret: str


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
    """Connect to a sandbox's merchant through the sandbox's own OAuth, without a browser.

    Args:
        runtime: the opened rooms.
        key: the connection's name.
        tenant: the customer of Flux.
        url: where the sandbox answers; it must be on this machine.
        merchant: which merchant; by default the one named like the connection, else one that is free.
        settings: settings beside `base_url`.

    """
    spec = provider_named(split_key(key)[0])
    base_url = url.rstrip("/")
    if urlsplit(base_url).hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ConfigurationError(
            "the sandbox must be on this machine",
            connection=key,
            next_step="Connect a real account with `--secrets -`.",
        )
    browser = runtime.transport.client(
        provider=spec.name, connection=key, base_url=base_url, limits=(), credentials=None, headers={}
    )
    answer = browser.request("GET", "/sandbox/app", idempotent=True, auth=False)
    try:
        app = msgspec.json.decode(answer.content, type=_SandboxApp)
    except msgspec.DecodeError as problem:
        raise ConfigurationError(f"{base_url} is not a Flux sandbox", connection=key) from problem
    oauth = runtime.oauth(
        spec, base_url=base_url, client_id=app.client_id, client_secret=app.client_secret, connection=key
    )
    redirect_uri = f"{base_url}/sandbox/callback"
    state = random_secrets.token_urlsafe(32)
    consent = urlsplit(oauth.authorize_url(redirect_uri, state))
    query = {k: v[0] for k, v in parse_qs(consent.query).items()}
    query["merchant"] = merchant or split_key(key)[1]
    answer = browser.request(
        "GET", f"{consent.path}?{urlencode(query)}", idempotent=True, auth=False, expect="redirect"
    )
    returned = parse_qs(urlsplit(answer.headers.get("location", "")).query)
    if returned.get("state") != [state] or "code" not in returned:
        raise BadResponseError("the sandbox's consent page gave no authorization code", connection=key)
    tokens = oauth.exchange(returned["code"][0], redirect_uri)
    return _store_and_prove(
        runtime,
        key,
        tenant=tenant,
        account_id=tokens.account_id,
        settings={**(settings or {}), "base_url": base_url},
        secrets={"client_id": app.client_id, "client_secret": app.client_secret},
        tokens=tokens,
    )
