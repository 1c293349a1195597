"""Who may send webhooks: each provider's signature check and accounts, remembered briefly, read again when they may be old.

Reading a secret leaves a trace in the state database, so a stranger's forgeries must not cause one each: after a refusal it
is looked up, at most once a second, whether the app was changed, and only then is its key read again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING

from flux_pipelines.domain.errors import ConfigurationError, FluxError
from flux_pipelines.providers.registry import all_providers
from flux_pipelines.runtime import keeps_personal_data
from flux_pipelines.state import NewEvent, digest

if TYPE_CHECKING:
    from flux_pipelines.privacy import Redactor
    from flux_pipelines.providers.base import Provider, WebhookSource
    from flux_pipelines.runtime import Runtime

_KEEP_SECONDS = 3.0
_LOOK_SECONDS = 1.0

_FIELDS = tuple(each.name for each in fields(NewEvent))
_BODY = _FIELDS.index("body")
_values = attrgetter(*_FIELDS)

_log = logging.getLogger("flux_pipelines.gateway")


@dataclass
class _Registered:
    spec: Provider
    source: WebhookSource | None = None
    changed_at: datetime | None = None
    redactor: Redactor | None = None
    accounts: dict[str, str] = field(default_factory=dict)
    unknown_accounts: set[str] = field(default_factory=set)  # since `accounts` were read
    #: Connections whose personal data somebody has asked to keep.
    unredacted: frozenset[str] = frozenset()
    #: Connections that are active.
    working: frozenset[str] = frozenset()
    read_at: float = float("-inf")
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)


class WebhookRegistry:
    """The providers whose webhooks this gateway takes.

    Args:
        runtime: the opened rooms; they are asked in a thread.

    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: dict[str, _Registered] = {}

    async def source(self, provider: str) -> WebhookSource | None:
        """Return the provider's webhooks, or None: no such provider, or its app has no signature key."""
        known = self._known.get(provider)
        if known is None:
            spec = all_providers().get(provider)
            if spec is None or spec.webhooks is None:
                return None
            known = self._known.setdefault(provider, _Registered(spec))
        keep = _LOOK_SECONDS if known.source is None else _KEEP_SECONDS
        if time.monotonic() - known.read_at > keep:
            await self._read_again(known, keep)
        return known.source

    async def changed(self, provider: str, refused: WebhookSource) -> WebhookSource | None:
        """Return other webhooks than those that refused a delivery, if the app was changed since; else None."""
        known = self._known[provider]
        await self._read_again(known, _LOOK_SECONDS)
        return known.source if known.source is not refused else None

    async def connection(self, provider: str, account_id: str) -> str | None:
        """Return the key of the account's connection; None for an account that is not connected (yet).

        Some providers' events name a location instead: its connection is found then.
        """
        known = self._known[provider]
        if account_id not in known.accounts:
            await self._read_again(known, _LOOK_SECONDS)
        if account_id and account_id not in known.accounts and account_id not in known.unknown_accounts:
            owners = await asyncio.to_thread(self._runtime.state.locations.owners, provider, account_id)
            if owners:
                # A location whose connection was disconnected may have another one by now.
                known.accounts[account_id] = next((key for key in owners if key in known.working), owners[0])
            else:
                known.unknown_accounts.add(account_id)
        return known.accounts.get(account_id)

    def redacted(self, events: Sequence[NewEvent]) -> list[NewEvent]:
        """Return the events without what is personal in their bodies, but for connections that keep it.

        Of a type that nothing is done for no body is left at all: nobody has declared what is personal in it.
        """
        answer = [
            event if self._known[event.provider].spec.uses(event.event_type) else _with_body(event, digest(event.body))
            for event in events
        ]
        events = answer[:]
        for provider in {event.provider for event in events}:
            known = self._known[provider]
            if known.redactor is None:
                continue
            mine = [
                number
                for number, event in enumerate(events)
                if event.provider == provider and event.connection_key not in known.unredacted
            ]
            bodies = known.redactor([events[number].body for number in mine])
            for number, body in zip(mine, bodies, strict=True):
                if body is not events[number].body:
                    answer[number] = _with_body(events[number], bytes(body))
        return answer

    async def _read_again(self, known: _Registered, older_than: float) -> None:
        async with known.reading:
            # Whoever waited for the lock finds what the one before has read.
            if time.monotonic() - known.read_at > older_than:
                try:
                    await asyncio.to_thread(self._read, known)
                except FluxError:
                    # What is known still tells forgeries from events; storing them will say that the database is away.
                    if known.source is None:
                        raise
                known.read_at = time.monotonic()

    def _read(self, known: _Registered) -> None:
        if known.redactor is None:
            known.redactor = self._runtime.redactor_of(known.spec)
        app = self._runtime.state.apps.get(known.spec.name)
        changed_at = app.updated_at if app is not None else None
        if changed_at != known.changed_at:
            try:
                known.source = self._runtime.webhooks(known.spec) if app is not None else None
            except ConfigurationError as problem:
                _log.warning("webhooks of %s are not taken: %s", known.spec.name, problem)
                known.source = None
            known.changed_at = changed_at
        found = sorted(self._runtime.connections(known.spec.name), key=lambda one: (one.status == "active", one.key))
        # Two connections may be of one account: an active one gets its events.
        known.unknown_accounts = set()
        known.accounts = {one.account_id: one.key for one in found if one.account_id}
        known.working = frozenset(one.key for one in found if one.status == "active")
        known.unredacted = frozenset(one.key for one in found if keeps_personal_data(one))


def _with_body(event: NewEvent, body: bytes) -> NewEvent:
    """Return the event with another body: `dataclasses.replace` in half its time, of which every event takes some."""
    values = list(_values(event))
    values[_BODY] = body
    return NewEvent(*values)
