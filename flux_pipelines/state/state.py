"""`State`: the one door to this room."""

from __future__ import annotations

from types import TracebackType

from flux_pipelines.state.audit.alerts import Alerts
from flux_pipelines.state.audit.audit import AuditLog
from flux_pipelines.state.connections.connections import Connections
from flux_pipelines.state.connections.cursors import Cursors
from flux_pipelines.state.connections.locations import Locations
from flux_pipelines.state.connections.mappings import Mappings
from flux_pipelines.state.credentials.apps import Apps
from flux_pipelines.state.credentials.installation import Installation
from flux_pipelines.state.credentials.secrets import Secrets
from flux_pipelines.state.credentials.vault import Vault
from flux_pipelines.state.database import Database
from flux_pipelines.state.inbox.inbox import Inbox
from flux_pipelines.state.outbox.outbox import Outbox
from flux_pipelines.state.people.api_tokens import ApiTokens
from flux_pipelines.state.people.authorizations import Authorizations
from flux_pipelines.state.people.erasures import Erasures
from flux_pipelines.state.people.people import People
from flux_pipelines.state.syncs.sync_requests import SyncRequests
from flux_pipelines.state.syncs.syncs import Syncs


class State:
    """The operational database: everything Flux remembers that is not in the lake.

    Args:
        database: a migrated database.
        vault: the keys of the stored secrets.

    """

    def __init__(self, database: Database, vault: Vault) -> None:
        self.database = database
        self.vault = vault
        self.syncs = Syncs(database)
        self.alerts = Alerts(database)
        self.secrets = Secrets(database, vault, self.alerts)
        self.connections = Connections(database, self.secrets, self.syncs, self.alerts)
        self.locations = Locations(database)
        self.cursors = Cursors(database)
        self.audit = AuditLog(database)
        self.apps = Apps(database, self.secrets)
        self.authorizations = Authorizations(database, self.secrets)
        self.people = People(database)
        self.api_tokens = ApiTokens(database)
        self.inbox = Inbox(database)
        self.outbox = Outbox(database)
        self.sync_requests = SyncRequests(database)
        self.installation = Installation(database, self.secrets)
        self.erasures = Erasures(database)
        self.mappings = Mappings(database)

    @classmethod
    def open(cls, database_url: str, vault: Vault) -> State:
        """Open the database and bring its schema up to date, which is cheap when it is.

        Args:
            database_url: `sqlite:///path` or `postgresql://...`; never repeated in an error.
            vault: the keys of the stored secrets.

        Raises:
            ConfigurationError: the URL is wrong, or the database refuses us or was written by a newer Flux.
            TableDamagedError: the database is damaged.
            StateUnavailableError: the database does not answer.
            StorageFullError: no space left.

        """
        database = Database(database_url)
        try:
            database.migrate()
        except BaseException:
            database.close()
            raise
        return cls(database, vault)

    def __enter__(self) -> State:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def rotate_keys(self, *, drop_old: bool = False) -> int:
        """Encrypt every stored secret with the newest key; nothing is unreadable at any moment.

        When the keys come from the key file, a new one is put in front first, and other processes pick it up by
        themselves. When they come from the environment, every process must know the new key before this is called.

        Args:
            drop_old: also drop the older keys from the key file, once nothing needs them.

        Returns:
            How many secrets were encrypted anew.

        Raises:
            DecryptionError: one secret cannot be decrypted with any key; it names the connection.
            ConfigurationError: `drop_old` with keys from the environment (all secrets are encrypted anew even so).

        """
        self.secrets.add_key()
        count = self.secrets.reencrypt()
        if drop_old:
            self.secrets.drop_old_keys()
        return count

    def purge(self) -> dict[str, int]:
        """Delete what nobody needs any more, everywhere; return how many rows of each kind."""
        return {
            "calls": self.audit.prune(),
            "events": self.inbox.purge(),
            "round trips": self.authorizations.purge(),
            "sessions": self.people.purge(),
            "api tokens": self.api_tokens.purge(),
            "sync requests": self.sync_requests.purge(),
            "alerts": self.alerts.purge(),
        }

    def close(self) -> None:
        """Write what the audit holds and close the database."""
        try:
            self.audit.close()
        finally:
            self.database.close()
