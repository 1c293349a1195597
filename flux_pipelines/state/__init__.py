"""The operational database: everything Flux remembers that is not in the lake, secrets encrypted. No Dagster.

SQLite in one file by default, PostgreSQL by URL. Nothing here knows a provider or a setting: callers pass plain values.
"""

from flux_pipelines.state.audit.alerts import Alert, Alerts
from flux_pipelines.state.audit.audit import AuditLog, CallEntry, CallTotals
from flux_pipelines.state.connections.connections import Connections
from flux_pipelines.state.connections.cursors import Cursors
from flux_pipelines.state.connections.locations import CachedLocation, Locations
from flux_pipelines.state.credentials.apps import App, Apps
from flux_pipelines.state.credentials.installation import Installation
from flux_pipelines.state.credentials.secrets import Secrets, SecretUse
from flux_pipelines.state.credentials.stored_tokens import Tokens
from flux_pipelines.state.credentials.token_manager import TokenManager
from flux_pipelines.state.credentials.vault import Vault, generate_key, load_keys
from flux_pipelines.state.database import Database
from flux_pipelines.state.inbox.events import Event, EventStatus, NewEvent, digest
from flux_pipelines.state.inbox.inbox import Inbox
from flux_pipelines.state.outbox.effect import Effect, EffectStatus, NewEffect
from flux_pipelines.state.outbox.outbox import Outbox, Sender
from flux_pipelines.state.people.api_tokens import ApiToken, ApiTokens
from flux_pipelines.state.people.authorizations import Authorizations
from flux_pipelines.state.people.erasures import ErasureReport, Erasures
from flux_pipelines.state.people.people import People, Person, csrf_of
from flux_pipelines.state.state import State
from flux_pipelines.state.syncs.sync_requests import SyncRequest, SyncRequests
from flux_pipelines.state.syncs.syncs import SyncRecord, Syncs, SyncTicket

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
    "Effect",
    "EffectStatus",
    "ErasureReport",
    "Erasures",
    "Event",
    "EventStatus",
    "Inbox",
    "Installation",
    "Locations",
    "NewEffect",
    "NewEvent",
    "Outbox",
    "People",
    "Person",
    "SecretUse",
    "Secrets",
    "Sender",
    "State",
    "SyncRecord",
    "SyncRequest",
    "SyncRequests",
    "SyncTicket",
    "Syncs",
    "TokenManager",
    "Tokens",
    "Vault",
    "csrf_of",
    "digest",
    "generate_key",
    "load_keys",
]
