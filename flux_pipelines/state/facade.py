"""`State`: the one door to this room."""

from __future__ import annotations

from types import TracebackType

from flux_pipelines.state.audit import AuditLog
from flux_pipelines.state.connections import Connections
from flux_pipelines.state.cursors import Cursors
from flux_pipelines.state.database import Database
from flux_pipelines.state.locations import Locations
from flux_pipelines.state.secrets import Secrets
from flux_pipelines.state.syncs import Syncs
from flux_pipelines.state.vault import Vault


class State:
    """The operational database: connections, secrets, locations, audit, syncs, cursors.

    Args:
        database: a migrated database.
        vault: the keys of the stored secrets.

    """

    def __init__(self, database: Database, vault: Vault) -> None:
        self.database = database
        self.vault = vault
        self.syncs = Syncs(database)
        self.secrets = Secrets(database, vault)
        self.connections = Connections(database, self.secrets, self.syncs)
        self.locations = Locations(database)
        self.cursors = Cursors(database)
        self.audit = AuditLog(database)

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

    def close(self) -> None:
        """Write what the audit holds and close the database."""
        try:
            self.audit.close()
        finally:
            self.database.close()
