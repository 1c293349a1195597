"""What an effect is, and what it writes in a form whose hash means something."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

#: `held` waits for a person, `pending` for a sender; `sending` is one's who may have died; of `ambiguous` nobody knows
#: whether it was written; `sent` stands there in its newest version; `failed` was refused.
EffectStatus = Literal["held", "pending", "sending", "ambiguous", "sent", "failed"]
STATUSES: tuple[EffectStatus, ...] = ("held", "pending", "sending", "ambiguous", "sent", "failed")

Put = Literal["created", "updated", "unchanged"]

#: As long as a key may be.
KEY_LENGTH = 255


@dataclass(frozen=True, slots=True)
class NewEffect:
    """Something that is to stand at another system.

    Args:
        key: what it is, always the same for the same thing, at most 255 characters:
            `quickbooks:acme:journal:harbor-1:2026-03-01`.
        connection_key: the connection it is written through.
        kind: what is written, in the words of whoever writes it: `journal_entry`.
        payload: what it says; amounts as text or integers, never float.
        hold: why it must wait for a person; empty: it may be sent.

    """

    key: str
    connection_key: str
    kind: str
    payload: Mapping[str, Any]
    hold: str = ""


@dataclass(frozen=True, slots=True)
class Effect:
    """An effect and how far it has come.

    Args:
        id: its number.
        key: what it is; see `NewEffect`.
        connection_key: the connection it is written through.
        kind: what is written.
        payload: what its newest version says, or the version that is being sent.
        payload_hash: the SHA-256 of that, 64 hexadecimal digits.
        version: which version that is, from 1.
        status: see `EffectStatus`.
        reason: why it is held, failed or ambiguous, for people.
        sent_version: the version that stands there; 0: none that we know of.
        sent_hash: the hash of that; empty without one. An object there that says something else was edited.
        remote_id: what the other system calls it; empty before it was sent.
        remote_version: that system's own mark of the state we left it in (QuickBooks' `SyncToken`).
        attempts: how often the newest version was tried.
        due_at: not before.
        created_at: when it was put here first.
        updated_at: when it changed last.
        sent_at: when it was written last.

    """

    id: int
    key: str
    connection_key: str
    kind: str
    payload: Mapping[str, Any] = field(repr=False)
    payload_hash: str
    version: int
    status: EffectStatus
    reason: str
    sent_version: int
    sent_hash: str
    remote_id: str
    remote_version: str
    attempts: int
    due_at: datetime | None
    created_at: datetime
    updated_at: datetime
    sent_at: datetime | None

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt at this version, and for no other: 40 hexadecimal digits."""
        return hashlib.sha256(f"{self.key}\n{self.version}".encode()).hexdigest()[:40]


def written(payload: Mapping[str, Any]) -> tuple[str, str]:
    """Return a payload as text, the same for equal ones, and the SHA-256 of that.

    Raises:
        TypeError: it holds a float, or what JSON cannot say: amounts are text or integers.

    """
    _no_floats(payload)
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text, hashlib.sha256(text.encode()).hexdigest()


def _no_floats(value: object) -> None:
    if isinstance(value, float):
        raise TypeError(f"an effect's payload holds the float {value!r}; amounts are text or integers")
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        _no_floats(inner)
