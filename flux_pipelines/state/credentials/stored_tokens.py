"""What is stored of a connection's tokens, when they are to be refreshed, and what a refresh changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from flux_pipelines.domain.errors import ConfigurationError

#: Names under which the instants are stored beside the tokens, as ISO 8601.
EXPIRY = "expires_at"
REFRESH_EXPIRY = "refresh_token_expires_at"
#: The refresh token before the present one, until that has been used with success.
PREVIOUS = "previous_refresh_token"
#: How long before its expiry a machine client's token is replaced. Toast gives a new one in the last minute only.
_SIGN_IN_BEFORE = timedelta(seconds=45)


class Tokens(Protocol):
    """The answer of a token endpoint. Instants are absolute; without `refresh_token` the old one stays good."""

    @property
    def access_token(self) -> str:
        """The new bearer token."""

    @property
    def refresh_token(self) -> str | None:
        """The next refresh token, when the provider gives one."""

    @property
    def expires_at(self) -> datetime | None:
        """When the bearer token expires; None when it does not, or the provider does not say."""

    @property
    def refresh_expires_at(self) -> datetime | None:
        """When the refresh token expires; None when it does not, or the provider does not say."""


@dataclass(frozen=True, slots=True)
class StoredTokens:
    """What the database knows of a connection's tokens at one moment."""

    access_token: str | None
    refresh_token: str | None
    previous_refresh_token: str | None
    expires_at: datetime | None
    refresh_expires_at: datetime | None
    stamp: datetime | None  # when the access token was stored
    signs_in: bool = (
        False  # a machine client, whose provider gives a new token only when the old one is about to expire
    )
    client_secret: str | None = None  # what it signs in with

    def __repr__(self) -> str:
        return "StoredTokens(...)"

    @classmethod
    def of(
        cls, secrets: Mapping[str, str], stamp: datetime | None, connection: str, *, signs_in: bool = False
    ) -> StoredTokens:
        """Pick the tokens from among a connection's secrets.

        Raises:
            ConfigurationError: a stored instant cannot be read.

        """
        return cls(
            access_token=secrets.get("access_token"),
            refresh_token=secrets.get("refresh_token"),
            previous_refresh_token=secrets.get(PREVIOUS),
            expires_at=_instant(secrets, EXPIRY, connection),
            refresh_expires_at=_instant(secrets, REFRESH_EXPIRY, connection),
            stamp=stamp,
            signs_in=signs_in,
            client_secret=secrets.get("client_secret") if signs_in else None,
        )

    @property
    def rests_on(self) -> tuple[str | None, ...]:
        """What the next token is got with: if it is another by then, somebody has stored something else."""
        return (self.client_secret, self.access_token) if self.signs_in else (self.refresh_token,)

    def valid(self) -> bool:
        """Whether the provider should still accept the access token."""
        return self.access_token is not None and (self.expires_at is None or datetime.now(UTC) < self.expires_at)

    def refresh_at(self) -> datetime | None:
        """When to refresh: 10 % of the life before expiry, at least 60 s, but never before half of the life.

        A machine client signs in just before its token expires, and only then: earlier, or of a token that was given out
        in its last minutes, it would get the same one again.
        """
        if self.expires_at is None:
            return None
        life = self._life(self.expires_at)
        if self.signs_in:
            return self.expires_at - (_SIGN_IN_BEFORE if life > 4 * _SIGN_IN_BEFORE else timedelta(0))
        return self.expires_at - min(max(life / 10, timedelta(seconds=60)), life / 2)

    def due(self) -> bool:
        """Whether it is time to refresh."""
        moment = self.refresh_at()
        return self.access_token is None or (moment is not None and datetime.now(UTC) >= moment)

    def due_within(self, within: timedelta) -> bool:
        """Whether one of the tokens expires within this time, and in the last quarter of its life.

        Without the second condition a token that lives an hour would be refreshed at every look.
        """
        if self.access_token is None:
            return True
        now = datetime.now(UTC)
        return any(
            now >= moment - min(within, self._life(moment) / 4)
            for moment in (self.expires_at, self.refresh_expires_at)
            if moment is not None
        )

    def after(self, used: str, fresh: Tokens, *, grace: bool) -> dict[str, str | None]:
        """Return what to store, and to delete (None), once a refresh with the token `used` has succeeded."""
        if self.signs_in:
            return {"access_token": fresh.access_token, EXPIRY: _text(fresh.expires_at)}
        newest = fresh.refresh_token or used
        rotated = newest != used
        changes: dict[str, str | None] = {
            "access_token": fresh.access_token,
            "refresh_token": newest,
            EXPIRY: _text(fresh.expires_at),
            # A token that came back the same has been proved by being used: there is nothing to fall back from.
            PREVIOUS: used if rotated and grace else None,
        }
        if rotated or fresh.refresh_expires_at is not None:
            changes[REFRESH_EXPIRY] = _text(fresh.refresh_expires_at)
        return changes

    def _life(self, end: datetime) -> timedelta:
        return end - self.stamp if self.stamp else timedelta(0)


def _instant(secrets: Mapping[str, str], name: str, connection: str) -> datetime | None:
    """Return a stored instant; None when there is none.

    Raises:
        ConfigurationError: it is not an instant with a time zone.

    """
    text = secrets.get(name)
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ConfigurationError(
            f"the stored `{name}` is not an instant with a time zone",
            connection=connection,
            next_step="Connect the account again; write it as 2026-01-31T12:00:00Z or leave it out.",
        ) from None
    return moment


def _text(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat() if moment else None
