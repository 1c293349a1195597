"""The operational database: connections, encrypted secrets, tokens, locations, audit, syncs, cursors. No Dagster.

SQLite in one file by default, PostgreSQL by URL. Nothing here knows a provider or a setting: callers pass plain values.
"""

from flux_pipelines.state.audit import AuditLog, CallEntry, CallTotals
from flux_pipelines.state.connections import Connections
from flux_pipelines.state.cursors import Cursors
from flux_pipelines.state.database import Database
from flux_pipelines.state.facade import State
from flux_pipelines.state.locations import CachedLocation, Locations
from flux_pipelines.state.secrets import Secrets, SecretUse
from flux_pipelines.state.syncs import SyncRecord, Syncs, SyncTicket
from flux_pipelines.state.tokens import TokenKeeper, Tokens
from flux_pipelines.state.vault import Vault, generate_key, load_keys

__all__ = [
    "AuditLog",
    "CachedLocation",
    "CallEntry",
    "CallTotals",
    "Connections",
    "Cursors",
    "Database",
    "Locations",
    "SecretUse",
    "Secrets",
    "State",
    "SyncRecord",
    "SyncTicket",
    "Syncs",
    "TokenKeeper",
    "Tokens",
    "Vault",
    "generate_key",
    "load_keys",
]
