"""The operational database: everything Flux remembers that is not in the lake, secrets encrypted. No Dagster.

SQLite in one file by default, PostgreSQL by URL. Nothing here knows a provider or a setting: callers pass plain values.
"""

from flux_pipelines.state.alerts import Alert, Alerts
from flux_pipelines.state.api_tokens import ApiToken, ApiTokens
from flux_pipelines.state.apps import App, Apps
from flux_pipelines.state.audit import AuditLog, CallEntry, CallTotals
from flux_pipelines.state.authorizations import Authorizations
from flux_pipelines.state.connections import Connections
from flux_pipelines.state.cursors import Cursors
from flux_pipelines.state.database import Database
from flux_pipelines.state.erasures import ErasureReport, Erasures
from flux_pipelines.state.events import Event, EventStatus, NewEvent, digest
from flux_pipelines.state.inbox import Inbox
from flux_pipelines.state.installation import Installation
from flux_pipelines.state.locations import CachedLocation, Locations
from flux_pipelines.state.people import People, Person, csrf_of
from flux_pipelines.state.requests import SyncRequest, SyncRequests
from flux_pipelines.state.secrets import Secrets, SecretUse
from flux_pipelines.state.state import State
from flux_pipelines.state.stored_tokens import Tokens
from flux_pipelines.state.syncs import SyncRecord, Syncs, SyncTicket
from flux_pipelines.state.tokens import TokenKeeper
from flux_pipelines.state.vault import Vault, generate_key, load_keys

__all__ = [
    "Alert",
    "Alerts",
    "ApiToken",
    "ApiTokens",
    "App",
    "Apps",
    "AuditLog",
    "Authorizations",
    "CachedLocation",
    "CallEntry",
    "CallTotals",
    "Connections",
    "Cursors",
    "Database",
    "ErasureReport",
    "Erasures",
    "Event",
    "EventStatus",
    "Inbox",
    "Installation",
    "Locations",
    "NewEvent",
    "People",
    "Person",
    "SecretUse",
    "Secrets",
    "State",
    "SyncRecord",
    "SyncRequest",
    "SyncRequests",
    "SyncTicket",
    "Syncs",
    "TokenKeeper",
    "Tokens",
    "Vault",
    "csrf_of",
    "digest",
    "generate_key",
    "load_keys",
]
