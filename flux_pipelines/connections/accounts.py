"""Accounts: connected with secrets or an authorization code, proved, connected again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flux_pipelines.domain.connection import Connection, split_key
from flux_pipelines.domain.errors import ConfigurationError, FluxError
from flux_pipelines.providers.apps import place_of
from flux_pipelines.providers.base import Location, OAuthProvider, Provider, TokenSet
from flux_pipelines.providers.registry import provider as provider_named
from flux_pipelines.runtime import CONSENT

if TYPE_CHECKING:
    from flux_pipelines.runtime import Runtime

#: Settings that no call can prove right or wrong. Proving them would wait for the very rate limit that they change.
_OF_FLUX_ALONE = frozenset({"requests_per_minute"})


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
        if isinstance(value, int | float) and value < 0:
            raise ConfigurationError(f"the setting {name} must not be negative", connection=key)
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
    runtime: Runtime,
    key: str,
    *,
    tenant: str,
    settings: Mapping[str, Any],
    secrets: Mapping[str, Any],
    again: bool = False,
) -> tuple[Connection, list[Location]]:
    """Add a connection with secrets that a person already has. Nothing is kept if they do not work.

    A connection that waits to be reconnected is given the new secrets and keeps its settings and history; with `again`
    also one that still works.
    """
    spec = provider_named(split_key(key)[0])
    checked = _check_secrets(spec, key, secrets)
    return _store_and_verify(
        runtime, key, tenant=tenant, account_id="", settings=settings, secrets=checked, again=again
    )


def reconfigure(
    runtime: Runtime, key: str, *, settings: Mapping[str, Any], secrets: Mapping[str, Any] | None
) -> tuple[Connection, list[Location]]:
    """Change a connection's settings and, if given, its secrets; everything is put back if it does not work then.

    What `needs_test` says that no call can prove is stored without one.

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
    calendar = _calendar_of(provider_named(before.provider))
    settings = {name: calendar.get(name) if value is None else value for name, value in settings.items()}
    checked = None if secrets is None else _check_secrets(provider_named(before.provider), key, secrets)
    runtime.state.connections.update_settings(key, settings)
    if not needs_test(settings, secrets):
        return runtime.state.connections.get(key), _known_locations(runtime, key)
    try:
        if checked is not None:
            runtime.state.secrets.put(key, checked)
        found, locations = _verify_access(runtime, key)
        if found:
            _refuse_other_account(runtime, key, before, found, {k: v for k, v in settings.items() if v is not None})
            runtime.state.connections.set_account(key, found)
        return runtime.state.connections.get(key), locations
    except BaseException:  # an interrupt too
        undo = {name: before.settings.get(name) for name in settings}
        runtime.state.connections.update_settings(key, undo)
        if checked is not None:
            runtime.state.secrets.put(key, kept)
        runtime.state.connections.set_status(key, before.status, before.status_reason)
        raise


def needs_test(settings: Mapping[str, Any], secrets: Mapping[str, Any] | None) -> bool:
    """Tell whether a change of a connection is proved by a call of the provider."""
    return secrets is not None or not settings or not settings.keys() <= _OF_FLUX_ALONE


def _known_locations(runtime: Runtime, key: str) -> list[Location]:
    return [
        Location(one.location_id, one.name, one.timezone, one.currency, one.active, one.earlier)
        for one in runtime.state.locations.list(key)
    ]


def _calendar_of(spec: Provider) -> dict[str, Any]:
    """Return the cut-off hour of a provider whose days do not end at midnight.

    It is stored with the connection: whoever reckons with its days knows the connection, and not its provider.
    """
    return {one.name: one.default for one in spec.settings if one.name == "cutoff_hour" and one.default}


def _verify_access(runtime: Runtime, key: str) -> tuple[str, list[Location]]:
    """Use a connection's credentials once: for its permission, its account's id and its locations."""
    connection = runtime.state.connections.get(key)
    source = runtime.source(connection)
    try:
        proved = source.verify_access(), runtime.refresh_locations(connection, source)
    finally:
        source.close()
    runtime.remember(key, CONSENT)
    return proved


def check_name(runtime: Runtime, key: str, *, again: bool) -> Connection | None:
    """Return the connection that this name stands for by now, or None when the name is free.

    Args:
        runtime: the opened rooms.
        key: the connection's name.
        again: whether an account is to be authorised again. Else a name that is in use is refused, unless its
            connection has lost its authorisation or was disconnected.

    Raises:
        ConfigurationError: not a name, or the name is taken.

    """
    split_key(key)
    previous = next((c for c in runtime.state.connections.list() if c.key == key), None)
    if previous is not None and not again and previous.status not in ("needs_reauth", "disconnected"):
        raise ConfigurationError(
            "there is a connection of that name already",
            connection=key,
            next_step=f"Choose another name, or remove it first: `flux connections remove {key}`.",
        )
    return previous


def connect_with_code(
    runtime: Runtime,
    key: str,
    oauth: OAuthProvider,
    *,
    tenant: str,
    callback: Mapping[str, str],
    redirect_uri: str,
    code_verifier: str | None = None,
    settings: Mapping[str, Any],
    secrets: Mapping[str, str] | None = None,
    again: bool = False,
) -> tuple[Connection, list[Location]]:
    """Turn an authorization code into a connection that works. If anything fails, everything is as it was before.

    Args:
        runtime: the opened rooms.
        key: the connection's name.
        oauth: the OAuth client of the app that was authorised.
        tenant: the customer of Flux; a connection that exists keeps its own.
        callback: the query with which the provider sent the browser back, its `code` among it.
        redirect_uri: where it sent the browser, exactly as it was asked to.
        code_verifier: PKCE's, when the provider was given a challenge.
        settings: checked settings to set.
        secrets: the app's credentials, to be kept with the connection: for an app that is not registered in Flux.
        again: authorise an existing connection again, even one that still works.

    Raises:
        ConfigurationError: the name is taken, or the authorisation is of another account than the connection's, or of
            one that is connected under another name.
        FluxError: the provider does not accept the code, or what it gave does not work.

    """
    check_name(runtime, key, again=again)
    tokens = oauth.exchange(callback, redirect_uri, code_verifier)
    return _store_and_verify(
        runtime,
        key,
        tenant=tenant,
        account_id=tokens.account_id,
        settings=settings,
        secrets={**(secrets or {}), **_token_secrets(tokens)},
        again=again,
    )


def _store_and_verify(
    runtime: Runtime,
    key: str,
    *,
    tenant: str,
    account_id: str,
    settings: Mapping[str, Any],
    secrets: Mapping[str, str],
    again: bool = False,
) -> tuple[Connection, list[Location]]:
    connections = runtime.state.connections
    previous = check_name(runtime, key, again=again)
    if account_id:
        _refuse_other_account(runtime, key, previous, account_id, settings)
    if previous is None:
        own = {**_calendar_of(provider_named(split_key(key)[0])), **settings}
        connections.add(Connection(key=key, tenant=tenant, account_id=account_id, settings=own), secrets)
        kept: dict[str, str] = {}
    else:
        kept = runtime.state.secrets.get(key, purpose="connect the account again")
        connections.update_settings(key, settings)
        runtime.state.secrets.put(key, secrets)
        connections.set_status(key, "active", "")
    try:
        found, locations = _verify_access(runtime, key)
        if not account_id and found:  # secrets do not say whose they are, and webhooks name the account
            _refuse_other_account(runtime, key, previous, found, settings)
        if account_id or found:
            connections.set_account(key, account_id or found)
        _refuse_shared_locations(runtime, key, locations)
    except BaseException as problem:  # an interrupt too: nothing half-connected is left behind
        if previous is None:
            connections.remove(key)
        else:
            _restore(runtime, previous, settings, kept, problem)
        raise
    runtime.state.alerts.resolve("consent_expiring", key)  # this is a new consent
    return connections.get(key), locations


def _refuse_other_account(
    runtime: Runtime, key: str, previous: Connection | None, account_id: str, settings: Mapping[str, Any]
) -> None:
    """See that one account has one connection, and a connection one account: else books would be mixed or doubled."""
    if previous is not None and previous.account_id and account_id != previous.account_id:
        raise ConfigurationError(
            f"this authorisation is for another account ({account_id}) than the connection's ({previous.account_id})",
            connection=key,
            next_step="Authorise the same account, or connect this one under a name of its own.",
        )
    spec = provider_named(split_key(key)[0])
    place = _place(spec, Connection(key, "", settings={**(previous.settings if previous else {}), **settings}))
    for other in runtime.state.connections.list(spec.name):
        if other.key != key and other.account_id == account_id and _place(spec, other) == place:
            raise ConfigurationError(
                f"this account ({account_id}) is connected already, as {other.key}: its sales would be counted twice",
                connection=key,
                next_step=f"Use {other.key} (reconnect it, if it is disconnected), or authorise another account.",
            )


def _refuse_shared_locations(runtime: Runtime, key: str, locations: Sequence[Location]) -> None:
    """See that a location has one connection: several of one account may each be for some of its locations."""
    spec = provider_named(split_key(key)[0])
    connections = {one.key: one for one in runtime.state.connections.list(spec.name)}
    for location in locations:
        for owner in runtime.state.locations.owners(spec.name, location.location_id):
            other = connections.get(owner)
            if (
                other is None
                or owner == key
                or other.status == "disconnected"
                or _place(spec, other) != _place(spec, connections[key])
            ):
                continue
            raise ConfigurationError(
                f"{location.name} ({location.location_id}) is connected already, as {owner}: its sales would be counted twice",
                connection=key,
                next_step=f"Leave it out here, or remove {owner} first.",
            )


def _place(spec: Provider, connection: Connection) -> str:
    """Return where a connection's account is, also of one whose address cannot be filled in: that is its own fault."""
    try:
        return place_of(spec, connection)
    except ConfigurationError:
        return str(spec.settings_of(connection).get("base_url"))


def _restore(
    runtime: Runtime, before: Connection, settings: Mapping[str, Any], kept: Mapping[str, str], problem: BaseException
) -> None:
    """Make a connection what it was before it was connected again in vain."""
    state = runtime.state
    state.connections.update_settings(before.key, {name: before.settings.get(name) for name in settings})
    state.secrets.put(before.key, kept)
    reason = before.status_reason
    if before.status == "needs_reauth":
        reason = problem.what if isinstance(problem, FluxError) else "reconnecting it was interrupted"
    state.connections.set_status(before.key, before.status, reason)


def _token_secrets(tokens: TokenSet) -> dict[str, str]:
    stored = {"access_token": tokens.access_token}
    if tokens.refresh_token:
        stored["refresh_token"] = tokens.refresh_token
    if tokens.expires_at is not None:
        stored["expires_at"] = tokens.expires_at.isoformat()
    if tokens.refresh_expires_at is not None:
        stored["refresh_token_expires_at"] = tokens.refresh_expires_at.isoformat()
    return stored
