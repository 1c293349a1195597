"""Connecting to a sandbox's merchants through the sandbox's own OAuth, without a browser; and again, when it is another.

A sandbox forgets every token when it ends, and the next one may answer on another port. Whether a connection is one of its
accounts is told by the ids of its locations, which no other system has and no other seed: not by the address, where anybody
may answer by now.
"""

from __future__ import annotations

import secrets as random_secrets
import socket
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec

from flux_pipelines.connections.accounts import add_with_secrets, connect_with_code
from flux_pipelines.domain.addresses import is_loopback
from flux_pipelines.domain.connection import Connection, split_key
from flux_pipelines.domain.decoding import decode
from flux_pipelines.domain.errors import BadResponseError, ConfigurationError, FluxError
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


class _Store(msgspec.Struct):
    id: str


class _Merchant(msgspec.Struct):
    provider: str
    handle: str
    locations: list[_Store]


class _SandboxWorld(msgspec.Struct):
    merchants: list[_Merchant]
    end_day: date | None


def sandbox_last_day(runtime: Runtime, url: str) -> date:
    """Return the last business date of a sandbox's world: over at every location."""
    last = _world_of(runtime, url).end_day
    if last is None:
        raise ConfigurationError(f"the sandbox at {url} has no orders", next_step="Start it without --orders.")
    return last


def _world_of(runtime: Runtime, url: str) -> _SandboxWorld:
    """Return what a sandbox tells of its world."""
    browser = runtime.transport.client(
        provider="sandbox", connection="", base_url=url, limits=(), credentials=None, headers={}
    )
    try:
        answer = browser.request(
            "GET",
            "/sandbox/merchants",
            idempotent=True,
            auth=False,
            decode=lambda body: decode(body, _SandboxWorld),
        )
    finally:
        browser.close()
    return answer.value


def _merchant_of(runtime: Runtime, world: _SandboxWorld, connection: Connection) -> _Merchant | None:
    """Return whose account a connection is in a sandbox's world, wherever that sandbox answered when it was made."""
    if not is_loopback(urlsplit(_address(connection)).hostname or ""):
        return None
    known = {location.location_id for location in runtime.state.locations.list(connection.key)}
    return next(
        (
            merchant
            for merchant in world.merchants
            if merchant.provider == connection.provider and known & {store.id for store in merchant.locations}
        ),
        None,
    )


def _address(connection: Connection) -> str:
    return str(connection.settings.get("base_url", ""))


def sandbox_accounts(runtime: Runtime, url: str) -> dict[str, str]:
    """Return which connections are accounts of a sandbox: their keys, by provider and handle (`square:harbor`)."""
    world = _world_of(runtime, url)
    found: dict[str, str] = {}
    for connection in runtime.state.connections.list():
        merchant = _merchant_of(runtime, world, connection)
        if merchant is not None:
            account = f"{merchant.provider}:{merchant.handle}"
            if connection.key == account or account not in found:
                found[account] = connection.key
    return found


def reconnect_to_sandbox(runtime: Runtime, url: str) -> list[FluxError]:
    """Give the accounts of a sandbox new tokens and its present address.

    One that is paused stays so, one that somebody disconnected too. What is not of this sandbox's world is not touched.

    Args:
        runtime: the opened rooms.
        url: where the sandbox answers now.

    Returns:
        Of each connection that could not be had again, why, and what to do. One of another system on this machine is
        among them only if it cannot work: nothing answers at its address, or this sandbox does.

    """
    world = _world_of(runtime, url)
    problems: list[FluxError] = []
    for connection in runtime.state.connections.list():
        if connection.status == "disconnected":
            continue
        merchant = _merchant_of(runtime, world, connection)
        if merchant is None:
            if _is_lost(connection, url):
                problems.append(_not_ours(connection, url))
            continue
        # That nobody answered while the sandbox was down says nothing of the one that is up.
        runtime.transport.forget_failures(connection.provider, connection.key)
        try:
            connect_to_sandbox(
                runtime, connection.key, tenant=connection.tenant, url=url, merchant=merchant.handle, again=True
            )
        except FluxError as problem:
            problems.append(_not_again(runtime, connection, url, problem))
        else:
            if connection.status == "paused":
                runtime.state.connections.set_status(connection.key, "paused", connection.status_reason)
    return problems


def _is_lost(connection: Connection, url: str) -> bool:
    """Tell whether a connection to this machine has nobody to talk to: nobody answers there, or this sandbox does."""
    there, here = urlsplit(_address(connection)), urlsplit(url)
    if not is_loopback(there.hostname or ""):
        return False
    port = there.port or (443 if there.scheme == "https" else 80)
    if port == here.port:
        return True
    try:
        socket.create_connection((there.hostname or "", port), timeout=1.0).close()
    except OSError:
        return True
    return False


def _not_ours(connection: Connection, url: str) -> FluxError:
    return ConfigurationError(
        f"it was connected at {_address(connection)}, and its account is not one of the sandbox at {url} "
        "(one with another seed, or other orders, is another world); it stays as it is",
        connection=connection.key,
        next_step="Start what it was connected to at that address, "
        f"or forget it: `flux connections remove {connection.key}`.",
    )


def _not_again(runtime: Runtime, connection: Connection, url: str, problem: FluxError) -> FluxError:
    """Record and return why an account of the sandbox is not connected again: its tokens are good for nothing now."""
    what = f"the sandbox at {url} restarted, and did not connect it again: {problem.what}"
    if connection.status == "active":
        runtime.state.connections.set_status(connection.key, "needs_reauth", what)
    return ConfigurationError(
        what,
        connection=connection.key,
        next_step=f"{problem.next_step} The others go on; forget this one with `flux connections remove {connection.key}`.".strip(),
        rerun_helps=problem.rerun_helps,
    )


def connect_to_sandbox(
    runtime: Runtime,
    key: str,
    *,
    tenant: str,
    url: str,
    merchant: str | None = None,
    settings: Mapping[str, Any] | None = None,
    again: bool = False,
) -> tuple[Connection, list[Location]]:
    """Connect to a sandbox's merchant, without a browser: through the sandbox's own OAuth where the provider has one.

    Args:
        runtime: the opened rooms.
        key: the connection's name.
        tenant: the customer of Flux.
        url: where the sandbox answers; it must be on this machine.
        merchant: which merchant; by default the one named like the connection, else one that is free.
        settings: settings beside `base_url`.
        again: connect a connection again, even one that still works.

    Raises:
        ConfigurationError: it is not a sandbox on this machine, or the name cannot be used: it is that of a connection
            which is not an account of this sandbox, and is left alone.
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
    previous = next((one for one in runtime.state.connections.list() if one.key == key), None)
    if previous is not None and _merchant_of(runtime, _world_of(runtime, base_url), previous) is None:
        raise ConfigurationError(
            f"there is a connection of that name already, and it is not an account of the sandbox at {base_url}",
            connection=key,
            next_step="Choose another name, or use a home of its own for the sandbox (FLUX_HOME).",
        )
    handle = merchant or split_key(key)[1]
    browser = runtime.transport.client(
        provider=spec.name, connection=key, base_url=base_url, limits=(), credentials=None, headers={}
    )
    try:
        return _connect(runtime, spec, browser, key, tenant, base_url, handle, dict(settings or {}), again=again)
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
    *,
    again: bool,
) -> tuple[Connection, list[Location]]:
    answer = browser.request("GET", "/sandbox/app", idempotent=True, auth=False)
    try:
        app = decode(answer.content, _SandboxApp)
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
        given = decode(answer.content, _Credentials)
        settings = {**given.settings, **settings, "base_url": f"{url}/{spec.name}"}
        return add_with_secrets(runtime, key, tenant=tenant, settings=settings, secrets=given.secrets, again=again)
    registered = app.apps.get(spec.name)
    template = str(registered.settings.get("base_url", url)) if registered else url
    base_url = address_of(spec, template, {setting.name: handle for setting in spec.connect_settings})
    oauth = runtime.oauth(
        spec, base_url=base_url, client_id=app.client_id, client_secret=app.client_secret, connection=key
    )
    try:
        callback, redirect_uri = _agree(browser, oauth, key, url, handle)
        return connect_with_code(
            runtime,
            key,
            oauth,
            tenant=tenant,
            callback=callback,
            redirect_uri=redirect_uri,
            settings={**settings, "base_url": base_url},
            secrets={"client_id": app.client_id, "client_secret": app.client_secret},
            again=again,
        )
    finally:
        oauth.close()


def _agree(browser: ApiClient, oauth: OAuthProvider, key: str, url: str, handle: str) -> tuple[dict[str, str], str]:
    """Agree on the consent page in a person's place; return the query of the callback and where it was sent to."""
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
    return returned, redirect_uri
