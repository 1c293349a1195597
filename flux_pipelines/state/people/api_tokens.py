"""Tokens with which machines call the gateway. Each is shown once; only its hash is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, cast

from sqlalchemy import delete, or_, select, update

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.state.credentials.digests import digest, new_token, same
from flux_pipelines.state.database import Database
from flux_pipelines.state.models import ApiTokenRow

Scope = Literal["read", "write"]
SCOPES: tuple[Scope, ...] = ("read", "write")

#: Secret scanners and people recognise a leaked token by this.
PREFIX = "flux_"
#: How `created_by` begins for those made on the command line; all others are a person's, by their e-mail address.
COMMAND_LINE = "command line"
_SHOWN = len(PREFIX) + 8
_USED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class ApiToken:
    """What is known of a token: never the token itself, only how it begins."""

    id: int
    name: str
    prefix: str
    scopes: tuple[Scope, ...]
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    @property
    def usable(self) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or datetime.now(UTC) < self.expires_at)

    @property
    def person(self) -> str | None:
        """The e-mail address of who made it in the gateway; None: whoever runs commands here, who needs no admission."""
        return None if self.created_by.partition(" (")[0] == COMMAND_LINE else self.created_by


class ApiTokens:
    """Creates, finds and revokes tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        name: str,
        created_by: str,
        expires_at: datetime | None = None,
        scopes: Sequence[Scope] = SCOPES,
    ) -> tuple[ApiToken, str]:
        """Create a token.

        Args:
            name: what it is for, for people.
            created_by: who asked for it: an e-mail address, or `COMMAND_LINE` and in brackets the user.
            expires_at: when it ends by itself; None for never.
            scopes: what it may do.

        Returns:
            What is known of it, and the token itself, which is not to be had again.

        Raises:
            ConfigurationError: no name, no or unknown scopes, or an expiry in the past.

        """
        if not name.strip():
            raise ConfigurationError("a token needs a name that says what it is for")
        if not scopes or set(scopes) - set(SCOPES):
            raise ConfigurationError("a token may `read`, or `read` and `write`")
        now = datetime.now(UTC)
        if expires_at is not None and expires_at <= now:
            raise ConfigurationError("the token would have expired already", next_step="Give a later expiry.")
        plaintext = PREFIX + new_token()
        row = ApiTokenRow(
            name=name.strip(),
            token_hash=digest(plaintext),
            prefix=plaintext[:_SHOWN],
            scopes=[scope for scope in SCOPES if scope in scopes],
            created_by=created_by,
            created_at=now,
            expires_at=expires_at,
            last_used_at=None,
            revoked_at=None,
        )
        with self._database.session() as session:
            session.add(row)
            session.flush()
            return _token(row), plaintext

    def find(self, plaintext: str) -> ApiToken | None:
        """Return the token that this is; None when there is none, or it is revoked or expired."""
        hashed = digest(plaintext)
        with self._database.reading() as session:
            row = session.scalars(select(ApiTokenRow).where(ApiTokenRow.token_hash == hashed)).first()
        if row is None or not same(row.token_hash, hashed):
            return None
        token = _token(row)
        if not token.usable:
            return None
        now = datetime.now(UTC)
        if token.last_used_at is None or now - token.last_used_at >= _USED_EVERY:
            with self._database.session() as session:
                session.execute(update(ApiTokenRow).where(ApiTokenRow.id == token.id).values(last_used_at=now))
        return token

    def list(self) -> list[ApiToken]:
        """Return every token, revoked and expired ones too, oldest first."""
        with self._database.reading() as session:
            return [_token(row) for row in session.scalars(select(ApiTokenRow).order_by(ApiTokenRow.id))]

    def revoke(self, token_id: int) -> ApiToken:
        """End a token at once; one that is revoked stays so.

        Raises:
            ConfigurationError: there is none with that id.

        """
        with self._database.session() as session:
            row = session.get(ApiTokenRow, token_id, with_for_update=True)
            if row is None:
                raise ConfigurationError(f"there is no token {token_id}", next_step="See `flux tokens list`.")
            if row.revoked_at is None:
                row.revoked_at = datetime.now(UTC)
            return _token(row)

    def purge(self, older_than: timedelta = timedelta(days=366)) -> int:
        """Delete the records of tokens that ended longer ago than that; return how many."""
        cutoff = datetime.now(UTC) - older_than
        with self._database.session() as session:
            gone = session.execute(
                delete(ApiTokenRow)
                .where(or_(ApiTokenRow.revoked_at < cutoff, ApiTokenRow.expires_at < cutoff))
                .returning(ApiTokenRow.id)
            )
            return len(gone.all())


def _token(row: ApiTokenRow) -> ApiToken:
    return ApiToken(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        scopes=cast(tuple[Scope, ...], tuple(row.scopes)),  # only checked ones are ever stored
        created_by=row.created_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
