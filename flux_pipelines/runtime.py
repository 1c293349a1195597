"""Composition root: builds the rooms from the settings, once a process. No Dagster.

The command line, the Dagster resource and the tests all go through `Runtime`, so that there is one way to open the state
database, the vault, the lake and a provider's client.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from flux_pipelines import __version__
from flux_pipelines.domain.connection import Connection, split_key
from flux_pipelines.domain.contact import Contact, Failed
from flux_pipelines.domain.errors import (
    ConfigurationError,
    DayNotReadyError,
    FluxError,
    HistoryUnavailableError,
    PermissionLostError,
    ProviderUnavailableError,
    ReauthorizationNeededError,
    TableDamagedError,
    UnknownConnectionError,
)
from flux_pipelines.providers.apps import place_of
from flux_pipelines.providers.base import (
    Location,
    MachineLogin,
    OAuthContext,
    OAuthProvider,
    Provider,
    Source,
    SourceContext,
    TokenSet,
    WebhookContext,
    WebhookSource,
)
from flux_pipelines.providers.registry import all_providers
from flux_pipelines.providers.registry import provider as provider_named
from flux_pipelines.settings import Settings
from flux_pipelines.settings import settings as process_settings

if TYPE_CHECKING:
    from flux_pipelines.forecaster.client import DemandEndpoint
    from flux_pipelines.forecaster.embedded import EmbeddedForecaster
    from flux_pipelines.lake import DeltaLake, Quarantine, RawStore
    from flux_pipelines.privacy import Pseudonyms, Redactor
    from flux_pipelines.state import App, State, TokenManager
    from flux_pipelines.transport import Transport


#: What the cursors are called that hold how a connection's last test and syncs have failed.
_OUTCOME = "outcome/"
_TEST, _ORDERS = "test", "sync of orders"
CONSENT = "consent"


def keeps_personal_data(connection: Connection) -> bool:
    """Tell whether somebody has set `keep_personal_data` to 1 for a connection; by default it is 0."""
    return str(connection.settings.get("keep_personal_data", 0)) == "1"


class Runtime:
    """The opened rooms. Each is opened when first used; `close()` releases what was opened.

    Args:
        settings: by default the process's.
        patient: try failing calls again for minutes, as a run may; else give up within seconds, as a sensor must
            (Dagster ends its tick after a minute).

    """

    def __init__(self, settings: Settings | None = None, *, patient: bool = True) -> None:
        self.settings = settings or process_settings()
        self._patient = patient

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Flush the audit and release connections and files. The embedded forecaster lives as long as the process."""
        opened = self.__dict__
        for name in ("demand_endpoint", "transport", "state"):
            room = opened.pop(name, None)
            if room is not None:
                room.close()

    @cached_property
    def _home(self) -> Path:
        return self.settings.make_home()

    @cached_property
    def state(self) -> State:
        """The operational database with its vault."""
        from flux_pipelines.state import State, Vault

        home = self._home
        keys = self.settings.encryption_keys
        vault = Vault.load(
            keys.get_secret_value() if keys is not None else None,
            home / "keys",
            production=self.settings.environment == "production",
        )
        return State.open(self.settings.state_url, vault)

    @cached_property
    def transport(self) -> Transport:
        """The way out: limiter and breakers shared by every process of this home (or of this database)."""
        from flux_pipelines.transport import PostgresLimitStore, SqliteLimitStore, Transport

        url = self.settings.state_url
        store = PostgresLimitStore(url) if url.startswith("postgres") else SqliteLimitStore(self._home / "limits.db")
        user_agent = f"flux-pipelines/{__version__}"
        if self._patient:
            return Transport(store, self.state.audit, user_agent=user_agent)
        from flux_pipelines.transport import RetryPolicy
        from flux_pipelines.transport.client import Timeout

        return Transport(
            store,
            self.state.audit,
            user_agent=user_agent,
            retry_policy=RetryPolicy(attempts=2, total_seconds=5.0, cap_seconds=2.0),
            timeout=Timeout(connect=3.0, read=10.0, total=12.0),
            give_up_after=5.0,
        )

    @cached_property
    def lake(self) -> DeltaLake:
        """The Delta tables."""
        from flux_pipelines.lake import DeltaLake, object_store

        return DeltaLake(object_store(self.settings.lake_root))

    @cached_property
    def raw(self) -> RawStore:
        """The raw orders, exactly as received."""
        from flux_pipelines.lake import RawStore, object_store

        return RawStore(object_store(self.settings.lake_root))

    @cached_property
    def quarantine(self) -> Quarantine:
        """The records that could not be used."""
        from flux_pipelines.lake import Quarantine

        return Quarantine(self.lake)

    @cached_property
    def pseudonyms(self) -> Pseudonyms:
        """What makes this installation's pseudonyms of personal data."""
        from flux_pipelines.privacy import Pseudonyms
        from flux_pipelines.state.credentials.installation import PSEUDONYMS

        return Pseudonyms(self.state.installation.secret(PSEUDONYMS, purpose="make pseudonyms"))

    def redactor(self, connection: Connection) -> Redactor | None:
        """Return what takes personal data out of a connection's records before they are stored.

        None when nothing is to be taken out: the connection's setting `keep_personal_data` is 1, or its provider
        declares nothing personal.
        """
        if keeps_personal_data(connection):
            return None
        return self.redactor_of(provider_named(connection.provider))

    def redactor_of(self, spec: Provider) -> Redactor | None:
        """Return what takes personal data out of a provider's records; None when it declares none."""
        from flux_pipelines.privacy import Redactor

        declared = spec.redaction
        if not (declared.remove or declared.pseudonymise or declared.within):
            return None
        return Redactor(declared, self.pseudonyms)

    def source(self, connection: Connection) -> Source:
        """Open the provider's client for a connection.

        Raises:
            ReauthorizationNeededError: the connection is waiting to be reconnected.
            ConfigurationError: the connection is paused, or its provider has no orders to read.

        """
        spec = provider_named(connection.provider)
        if connection.status == "needs_reauth":
            raise ReauthorizationNeededError(
                f"the connection needs to be authorised again ({connection.status_reason})", connection=connection.key
            )
        if connection.status == "paused":
            raise ConfigurationError(
                "the connection is paused",
                connection=connection.key,
                next_step=f"Run `flux connections resume {connection.key}` first.",
            )
        if connection.status == "disconnected":
            raise ReauthorizationNeededError(f"the account is {connection.status_reason}", connection=connection.key)
        if spec.source is None:
            raise ConfigurationError(f"{spec.title} is not a source of orders", connection=connection.key)
        context = SourceContext(spec, connection, self.token_manager(connection), self.transport)
        source: Source = spec.load(spec.source)(context)
        return source

    def token_manager(self, connection: Connection) -> TokenManager:
        """Return what keeps a connection's token fresh."""
        from flux_pipelines.state import TokenManager

        spec = provider_named(connection.provider)
        return TokenManager(
            self.state,
            connection.key,
            lambda token: self._refresh(connection, token),
            grace=spec.refresh_grace,
            sign_in=(lambda: self._sign_in(connection)) if spec.login is not None else None,
        )

    def renewed_by_itself(self) -> set[str]:
        """Return the keys of the connections whose access token Flux replaces without anybody.

        With a refresh token and an app to use it with, or by signing in again with a machine client's credentials. A
        token that a person made lasts until it expires.
        """
        apps = {app.name for app in self.state.apps.list()}

        def able(provider: str, names: Set[str]) -> bool:
            spec = all_providers().get(provider)
            if spec is None:
                return False
            if spec.login is not None:
                return {"client_id", "client_secret"} <= names
            return spec.oauth is not None and "refresh_token" in names and ("client_id" in names or provider in apps)

        return {key for key, names in self.state.secrets.names().items() if able(split_key(key)[0], names)}

    def contacts(self, connections: Sequence[Connection]) -> dict[str, Contact]:
        """Return how the last calls of each active connection went, over all processes; the others are not called."""
        keys = [connection.key for connection in connections if connection.status == "active"]
        held = self.transport.held_back(keys)
        found = {}
        for key in keys:
            contact = self.state.audit.contact(key)
            if key in held:
                until = datetime.now(UTC) + timedelta(seconds=held[key]) if held[key] > 0 else None
                contact = replace(contact, held=True, held_until=until)
            failed = [
                one
                for one in self._failed(key)
                # What passes and lies ahead is of a clock that was set back: nobody can tell whether it is settled.
                if not one.passing or (contact.good_at or one.at) <= one.at <= datetime.now(UTC)
            ]
            failed.sort(key=lambda one: (one.passing, -one.at.timestamp()))
            found[key] = replace(contact, failed=tuple(failed))
        return found

    def _failed(self, key: str) -> list[Failed]:
        told = (value for name, value in self.state.cursors.of(key).items() if name.startswith(_OUTCOME))
        return [Failed(**{**value, "at": datetime.fromisoformat(value["at"])}) for value in told]

    def remember(self, key: str, what: str, *errors: FluxError) -> None:
        """Remember how the last test of a connection, or its last sync of orders or of a stream, has ended.

        Args:
            key: the connection.
            what: `test`, `sync of orders`, `sync of payments` ...; CONSENT: new credentials were proved to work.
            errors: why it failed; none when it succeeded.

        """
        cursors = self.state.cursors
        if not errors:
            for failed in self._failed(key):
                lost = failed.error == PermissionLostError.__name__
                # A sync says more than a test. A test proves that orders may be read; a new consent is for everything.
                more = failed.what == _TEST and what in (_ORDERS, CONSENT)
                granted = lost and (what == CONSENT or (failed.what, what) == (_ORDERS, _TEST))
                if failed.what == what or more or granted:
                    cursors.delete(f"{_OUTCOME}{failed.what}/{key}")
            return
        of_days = (DayNotReadyError, HistoryUnavailableError)  # and not of the connection
        found = sorted((error for error in errors if not isinstance(error, of_days)), key=lambda one: one.rerun_helps)
        with suppress(UnknownConnectionError):  # it was removed meanwhile
            if found and self.state.connections.get(key).status == "active":  # else the status says why
                worst, passing = found[0], isinstance(found[0], ProviderUnavailableError)
                now = datetime.now(UTC)
                told = asdict(
                    Failed(what, now, type(worst).__name__, worst.what, worst.next_step, passing, worst.rerun_helps)
                )
                cursors.set(f"{_OUTCOME}{what}/{key}", {**told, "at": now.isoformat()}, connection=key)

    def oauth_of(self, connection: Connection) -> OAuthProvider | None:
        """Open the OAuth client of the app that a connection belongs to: its own if one was stored with it, else ours.

        None for a token that a person made, or a machine client: no app stands behind it.
        """
        spec = provider_named(connection.provider)
        if spec.oauth is None:
            return None
        secrets = self.state.secrets.get(connection.key, purpose="act for the app")
        if "client_id" in secrets:
            return self.oauth(
                spec,
                base_url=place_of(spec, connection),
                client_id=secrets["client_id"],
                client_secret=secrets.get("client_secret", ""),
                connection=connection.key,
            )
        if "refresh_token" in secrets:
            return self.app_oauth(spec, connection=connection.key, base_url=place_of(spec, connection))
        return None

    def oauth(
        self, spec: Provider, *, base_url: str, client_id: str, client_secret: str, connection: str
    ) -> OAuthProvider:
        """Open the provider's OAuth client for one app."""
        if spec.oauth is None:
            raise ConfigurationError(f"{spec.title} does not connect through OAuth")
        client: OAuthProvider = spec.load(spec.oauth)(
            OAuthContext(spec, base_url, client_id, client_secret, self.transport, connection)
        )
        return client

    def app_oauth(self, spec: Provider, *, connection: str = "", base_url: str = "") -> OAuthProvider:
        """Open the OAuth client of the app that is registered for a provider.

        Args:
            spec: the provider.
            connection: whose account it acts for, when that is known.
            base_url: where that account is; by default where the app is registered.

        Raises:
            ConfigurationError: none is registered.

        """
        app = self.app(spec.name)
        secrets = self.state.apps.secrets(spec.name, purpose="act for the app")
        return self.oauth(
            spec,
            base_url=base_url or str(app.settings.get("base_url", spec.base_url)),
            client_id=secrets["client_id"],
            client_secret=secrets.get("client_secret", ""),
            connection=connection,
        )

    def _refresh(self, connection: Connection, refresh_token: str) -> TokenSet:
        app = self.oauth_of(connection)
        if app is None:
            raise ConfigurationError("there is no app to refresh the token with", connection=connection.key)
        try:
            return app.refresh(refresh_token)
        finally:
            app.close()

    def _sign_in(self, connection: Connection) -> TokenSet:
        spec = provider_named(connection.provider)
        secrets = self.state.secrets.get(connection.key, purpose="sign in at the provider")
        if spec.login is None or "client_id" not in secrets:
            raise ConfigurationError(
                "the connection has no credentials to sign in with",
                connection=connection.key,
                next_step="Connect the account again with its secrets.",
            )
        login: MachineLogin = spec.load(spec.login)(
            OAuthContext(
                spec,
                str(spec.settings_of(connection)["base_url"]),
                secrets["client_id"],
                secrets.get("client_secret", ""),
                self.transport,
                connection.key,
            )
        )
        try:
            return login.sign_in()
        finally:
            login.close()

    def app(self, name: str) -> App:
        """Return Flux's own registration at a provider or identity provider.

        Raises:
            ConfigurationError: Flux is not registered there.

        """
        found = self.state.apps.get(name)
        if found is None:
            raise ConfigurationError(
                f"Flux has no app registered at {name!r}",
                next_step=f"Register one there, then store it with `flux apps set {name}`.",
            )
        return found

    def webhooks(self, spec: Provider) -> WebhookSource:
        """Open the provider's webhooks for the registered app: its signature check, and what its events mean.

        Raises:
            ConfigurationError: it has none, or the app is not registered with a signature key and notification URL.

        """
        if spec.webhooks is None:
            raise ConfigurationError(f"{spec.title} has no webhooks")
        app = self.app(spec.name)
        secrets = self.state.apps.secrets(spec.name, purpose="verify webhooks")
        key = secrets.get("webhook_signature_key") or secrets.get(spec.webhooks_signed_with, "")
        context = WebhookContext(spec, str(app.settings.get("notification_url", "")), key)
        source: WebhookSource = spec.load(spec.webhooks)(context)
        return source

    @cached_property
    def demand_endpoint(self) -> DemandEndpoint:
        """The forecast endpoint: our own forecaster unless the settings name another."""
        from flux_pipelines.forecaster.client import DemandEndpoint

        where = self.settings.forecast_url
        url = None if where == "aws" else self._forecaster().url if where == "embedded" else where
        return DemandEndpoint(self.settings.forecast_endpoint, url=url)

    def _forecaster(self) -> EmbeddedForecaster:
        from flux_pipelines.forecaster.embedded import shared

        return shared(self.settings.forecast_endpoint)

    def warm_forecaster(self) -> None:
        """Start the embedded forecaster now, without waiting: its libraries take seconds to load."""
        if self.settings.forecast_url == "embedded":
            self._forecaster()

    def connections(self, provider: str | None = None, keys: Sequence[str] = ()) -> list[Connection]:
        """Return the named connections, or all of a provider."""
        if keys:
            return [self.state.connections.get(key) for key in keys]
        return self.state.connections.list(provider=provider)

    def refresh_locations(self, connection: Connection, source: Source) -> list[Location]:
        """Ask the provider for the connection's locations, remember them, and return them.

        Where a zone or the cut-off hour has changed, what has been landed keeps its boundaries.
        """
        found = source.locations()
        self.state.locations.replace(connection.key, found)
        spec = provider_named(connection.provider)
        by_day = [self.raw.of(stream.name) for stream in spec.streams if stream.grain == "day"]

        def first_new() -> date | None:
            landed = [day for raw in by_day for day in raw.days(connection.key)]
            return max(landed) + timedelta(days=1) if landed else None

        zones = {location.location_id: location.timezone for location in found}
        earlier = self.state.locations.keep_calendars(connection.key, zones, connection.cutoff_hour, first_new)
        return [replace(location, earlier=earlier[location.location_id]) for location in found]

    def forget_unused_events(self) -> int:
        """Forget the bodies of stored webhook events that nothing is done for, as new ones are not kept; return how many."""
        return sum(self.state.inbox.forget_bodies(spec.name, spec.uses) for spec in all_providers().values())

    def places(self) -> dict[str, str]:
        """Return what every store is called, by its id; those of connections that were removed, as the lake has them.

        Ids that two connections have for different stores are left out.
        """
        from flux_pipelines.domain.tables import LOCATIONS

        found = self.state.locations.names()
        gone = set(self.raw.connections()) - {connection.key for connection in self.connections()}
        if not gone:
            return found
        try:
            rows = self.lake.read(LOCATIONS, columns=["connection", "location_id", "name"]).read_all().to_pylist()
        except TableDamagedError:  # its own asset says so; a preview shows ids then
            return found
        for row in rows:
            if row["connection"] in gone and found.setdefault(row["location_id"], row["name"]) != row["name"]:
                del found[row["location_id"]]
        return found

    def rotate_keys(self, *, drop_old: bool = False) -> int:
        """Encrypt every stored credential with the newest key; return how many."""
        return self.state.rotate_keys(drop_old=drop_old)
