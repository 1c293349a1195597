"""Browsers that were sent to a provider and are to come back: each round trip works once, soon, for whoever began it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import delete

from flux_pipelines.domain.errors import AuthorizationRefusedError
from flux_pipelines.state.credentials.digests import digest, new_token, same
from flux_pipelines.state.credentials.secrets import Secrets
from flux_pipelines.state.database import Database
from flux_pipelines.state.models import AuthorizationRow

Purpose = Literal["connect", "sign_in"]

#: For this long after it expired a round trip is remembered, so that a replay is told from an invention.
_REMEMBERED = timedelta(days=1)


class Authorizations:
    """Begins and redeems round trips."""

    def __init__(self, database: Database, secrets: Secrets) -> None:
        self._database = database
        self._secrets = secrets

    def begin(
        self,
        purpose: Purpose,
        provider: str,
        *,
        session: str,
        payload: Mapping[str, Any],
        lifetime: float = 600.0,
    ) -> str:
        """Remember a round trip and return the random `state` to send with the browser.

        Args:
            purpose: what it is for; `redeem` asks for the same.
            provider: where the browser is sent.
            session: the token of the browser's session; only a browser with the same one may redeem.
            payload: what is needed when it comes back (code verifier, nonce, redirect URI); JSON, kept encrypted.
            lifetime: seconds it is good for.

        """
        state = new_token()
        now = datetime.now(UTC)
        with self._database.session() as db:
            self._secrets.hold_keys(db)
            ciphertext, key_id = self._secrets.vault.encrypt(json.dumps(dict(payload)))
            db.add(
                AuthorizationRow(
                    state_hash=digest(state),
                    purpose=purpose,
                    provider=provider,
                    session_hash=digest(session),
                    ciphertext=ciphertext,
                    key_id=key_id,
                    created_at=now,
                    expires_at=now + timedelta(seconds=lifetime),
                    used_at=None,
                )
            )
        return state

    def redeem(self, state: str, purpose: Purpose, provider: str, session: str) -> dict[str, Any]:
        """Return the payload to the one that asks first, with the right session, in time.

        Whoever knows the state uses it up, even when refused: one that somebody else has seen is not to be trusted.

        Raises:
            AuthorizationRefusedError: see its `reason`.

        """
        with self._database.session() as db:
            # The row lock decides between processes: the second sees what the first has written.
            row = db.get(AuthorizationRow, digest(state), with_for_update=True)
            reason, ciphertext = "", ""
            if row is None:
                reason = "unknown"
            elif row.used_at is not None:
                reason = "used"
            else:
                now = datetime.now(UTC)
                ciphertext = row.ciphertext
                row.used_at, row.ciphertext = now, ""
                if now >= row.expires_at:
                    reason = "expired"
                elif not same(row.session_hash, digest(session)):
                    reason = "other_session"
                elif (row.purpose, row.provider) != (purpose, provider):
                    reason = "wrong_provider"
        if reason:
            raise AuthorizationRefusedError(reason)
        payload: dict[str, Any] = json.loads(self._secrets.vault.decrypt(ciphertext))
        return payload

    def purge(self, older_than: timedelta = _REMEMBERED) -> int:
        """Forget those that expired longer ago than that; return how many."""
        cutoff = datetime.now(UTC) - max(older_than, _REMEMBERED)
        with self._database.session() as db:
            gone = db.execute(
                delete(AuthorizationRow)
                .where(AuthorizationRow.expires_at < cutoff)
                .returning(AuthorizationRow.state_hash)
            )
            return len(gone.all())
