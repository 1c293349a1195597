"""The bearer token of a connection: kept fresh by one refresher at a time across threads, processes and hosts.

The refresher holds a lease, a row that expires by itself, so that one that dies is taken over. New tokens are committed
before anybody uses them: a provider that rotates refresh tokens has already forgotten the old one.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from flux_pipelines.domain import errors
from flux_pipelines.domain.errors import (
    ConfigurationError,
    FluxError,
    ProviderUnavailableError,
    ReauthorizationNeededError,
    StateUnavailableError,
    StorageFullError,
)
from flux_pipelines.state.models import ConnectionRow, CredentialRow, TokenLeaseRow

if TYPE_CHECKING:
    from flux_pipelines.state.facade import State

_log = logging.getLogger(__name__)

#: How often a token in memory is compared with the stored one, which may have been replaced by hand (s).
_LOOK_EVERY = 30.0
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Tokens(Protocol):
    """The answer of a token endpoint. `expires_at` is absolute; without `refresh_token` the old one stays good."""

    @property
    def access_token(self) -> str:
        """The new bearer token."""

    @property
    def refresh_token(self) -> str | None:
        """The next refresh token, when the provider gives one."""

    @property
    def expires_at(self) -> datetime | None:
        """When the bearer token expires; None when it does not, or the provider does not say."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the database knows of a connection's tokens at one moment."""

    access_token: str | None
    refresh_token: str | None
    expires_at: datetime | None
    stamp: datetime | None  # when the access token was stored

    def __repr__(self) -> str:
        return "_Stored(...)"

    def valid(self) -> bool:
        """Whether the provider should still accept the token."""
        return self.access_token is not None and (self.expires_at is None or datetime.now(UTC) < self.expires_at)

    def refresh_at(self) -> datetime | None:
        """When to refresh: 10 % of the life before expiry, at least 60 s, but never before half of the life."""
        if self.expires_at is None:
            return None
        life = self.expires_at - self.stamp if self.stamp else timedelta(0)
        return self.expires_at - min(max(life / 10, timedelta(seconds=60)), life / 2)

    def due(self) -> bool:
        """Whether it is time to refresh."""
        moment = self.refresh_at()
        return self.access_token is None or (moment is not None and datetime.now(UTC) >= moment)


class TokenKeeper:
    """Gives a connection's bearer token (`providers.base.Credentials`). Safe to use from threads.

    Args:
        state: where the tokens are stored.
        connection_key: whose.
        refresh: calls the provider's token endpoint with the refresh token; None for a token that cannot be refreshed,
            which also holds when no refresh token is stored. It raises ReauthorizationNeededError when the provider no
            longer accepts the refresh token; any other error is taken as passing.
        lease: seconds after which a refresher that has died is taken over; a living one prolongs its lease.
        patience: seconds to wait for another refresher at most.
        cool_off: seconds for which nobody tries a failed refresh again. Those who waited for it, and those who come
            within this time, get its error; sixteen processes would else fail one after the other.

    """

    def __init__(
        self,
        state: State,
        connection_key: str,
        refresh: Callable[[str], Tokens] | None,
        *,
        lease: float = 30.0,
        patience: float = 300.0,
        cool_off: float = 1.0,
    ) -> None:
        self._state = state
        self._database = state.database
        self._key = connection_key
        self._refresh = refresh
        self._lease = timedelta(seconds=lease)
        self._patience = patience
        self._cool_off = timedelta(seconds=cool_off)
        self._mutex = threading.Lock()
        self._known: _Stored | None = None
        self._look_at = 0.0

    def __repr__(self) -> str:
        return f"TokenKeeper({self._key!r})"

    def token(self) -> str:
        """Return a token that is valid now, refreshing it first when it is about to expire.

        Raises:
            ReauthorizationNeededError: the provider no longer accepts the connection, or a token that cannot be
                refreshed has expired.
            ConfigurationError: the connection has no token stored, or does not exist.
            FluxError: the refresh failed and the present token is no longer valid.

        """
        known = self._known
        if known is not None and known.access_token and not known.due() and time.monotonic() < self._look_at:
            return known.access_token
        with self._mutex:
            return self._obtain(rejected=None)

    def renew(self, rejected: str) -> str:
        """Return a token other than the rejected one, refreshing only if nobody has replaced it yet.

        Raises:
            ReauthorizationNeededError: the provider no longer accepts the connection, or it has a token that cannot be
                refreshed; the connection is marked `needs_reauth`.
            FluxError: the refresh failed.

        """
        with self._mutex:
            return self._obtain(rejected=rejected)

    # --- the way to a good token; the caller holds the mutex ---

    def _obtain(self, rejected: str | None) -> str:
        known = self._known
        if (
            known is not None
            and known.access_token not in (None, rejected)
            and not known.due()
            # Another thread got it while this one waited for the mutex, or nothing has changed since the last look.
            and (time.monotonic() < self._look_at or not self._changed(known))
        ):
            return self._use(known)
        deadline = time.monotonic() + self._patience
        waited = False
        while True:
            stored, holder = self._enter(rejected, waited)
            if holder is not None:
                outcome = self._refresh_as(holder, stored, rejected)
                if outcome is not None:
                    return outcome
            elif stored is not None:
                return self._use(stored)
            elif time.monotonic() > deadline:
                raise ProviderUnavailableError(
                    f"another process has been refreshing the token for {self._patience:.0f} s", connection=self._key
                )
            else:
                # Spread, so that sixteen waiters do not all read at the same moment.
                time.sleep(random.uniform(0.05, 0.2))  # noqa: S311
                waited = True

    def _use(self, stored: _Stored) -> str:
        if stored.access_token is None:  # narrowed by every caller
            raise AssertionError("a token that is used exists")
        # A token that is due but still valid is served while somebody else refreshes it: look again soon.
        self._look_at = time.monotonic() + (1.0 if stored.due() else _LOOK_EVERY)
        self._known = stored
        return stored.access_token

    def _changed(self, known: _Stored) -> bool:
        with self._database.reading() as session:
            stamp = self._stamp(session)
        if stamp != known.stamp:
            return True
        self._look_at = time.monotonic() + _LOOK_EVERY
        return False

    def _enter(self, rejected: str | None, waited: bool) -> tuple[_Stored | None, str | None]:
        """Look at what is stored and decide.

        Returns:
            (stored, None): use this token. (stored, holder): refresh it; the lease is ours. (None, None): wait.

        """
        with self._database.reading() as session:
            # A first look without any lock: most of those who wait only need this.
            lease = session.get(TokenLeaseRow, self._key)
            stamp = self._stamp(session)
            held = lease is not None and lease.expires_at > self._database.now(session)
        known = self._known
        if held and known is not None and known.stamp == stamp:
            if known.valid() and known.access_token != rejected:
                return known, None
            return None, None
        fault: FluxError | None = None
        with self._database.session() as session:
            row = session.get(ConnectionRow, self._key, with_for_update=True)
            stored = self._known = self._read(session, "call the provider")
            good = stored.valid() and stored.access_token != rejected
            if good and not stored.due():
                return stored, None
            can_refresh = self._refresh is not None and stored.refresh_token is not None
            if not can_refresh:
                if good:
                    return stored, None
                fault = self._unrefreshable(stored, row)
            else:
                verdict = self._contend(session, row, waited)
                if isinstance(verdict, str):
                    return stored, verdict
                fault = verdict
        if good:
            return stored, None
        if fault is not None:
            raise fault
        return None, None

    def _contend(self, session: Session, row: ConnectionRow | None, waited: bool) -> str | FluxError | None:
        """Take the lease (its holder's name), or say why not (an error), or that somebody else has it (None)."""
        if row is not None and row.status == "needs_reauth":
            return ReauthorizationNeededError(
                f"the connection needs to be authorised again ({row.status_reason})", connection=self._key
            )
        now = self._database.now(session)
        lease = session.get(TokenLeaseRow, self._key, with_for_update=True)
        if lease is not None:
            if lease.expires_at > now:
                return None
            # Whoever takes the lease clears the failure: one that a waiter finds happened while it waited.
            if lease.failed_at is not None and (waited or now - lease.failed_at < self._cool_off):
                return _shared_failure(lease)
        holder = uuid.uuid4().hex
        values = {"connection_key": self._key, "holder": holder, "expires_at": now + self._lease}
        empty = {"failed_at": None, "failure_kind": "", "failure": ""}
        self._database.upsert(session, TokenLeaseRow, [{**values, **empty}])
        if lease is not None and lease.holder:
            _log.warning("%s: the process that was refreshing the token has died; taking over", self._key)
        return holder

    def _unrefreshable(self, stored: _Stored, row: ConnectionRow | None) -> FluxError:
        if stored.access_token is None:
            return ConfigurationError(
                "the connection has no token stored",
                connection=self._key,
                next_step="Connect the account again with its secrets.",
            )
        reason = "its access token has expired" if not stored.valid() else "the provider rejected its access token"
        _mark(row, reason)
        return ReauthorizationNeededError(
            f"{reason}, and there is no refresh token to get another", connection=self._key
        )

    # --- refreshing under the lease ---

    def _refresh_as(self, holder: str, stored: _Stored | None, rejected: str | None) -> str | None:
        """Refresh as the lease's holder; None when somebody has stored other tokens meanwhile: look again."""
        if stored is None or stored.refresh_token is None or self._refresh is None:
            raise AssertionError("only what can be refreshed is leased")
        try:
            with self._heartbeat(holder):
                fresh = self._refresh(stored.refresh_token)
                return self._store_patiently(holder, stored.refresh_token, fresh)
        except ReauthorizationNeededError as error:
            if self._give_up(holder, stored.refresh_token, error):
                raise
            return None
        except BaseException as error:
            # Every way out frees the lease, an interrupt included.
            self._note_failure(holder, error)
            usable = stored.valid() and stored.access_token != rejected
            if usable and isinstance(error, FluxError) and error.rerun_helps:
                _log.warning("%s: refreshing early failed, the present token still holds: %s", self._key, error.what)
                return self._use(stored)
            raise

    def _store_patiently(self, holder: str, used: str, fresh: Tokens) -> str | None:
        """Store the new tokens, however long the database is busy or full: nobody else has them."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return self._store(holder, used, fresh)
            except (StateUnavailableError, StorageFullError) as error:
                if time.monotonic() > deadline:
                    raise
                _log.warning("%s: a new token could not be stored yet: %s", self._key, error.what)
                time.sleep(0.5)

    def _store(self, holder: str, used: str, fresh: Tokens) -> str | None:
        with self._database.session() as session:
            self._state.secrets.hold_keys(session)
            row = session.get(ConnectionRow, self._key, with_for_update=True)
            self._free(session, holder)
            if self._read(session, "store a new token").refresh_token != used:
                # The lease ran out (this process was stopped for long) or the account was connected anew.
                return None
            changes: dict[str, str | None] = {
                "access_token": fresh.access_token,
                "expires_at": fresh.expires_at.astimezone(UTC).isoformat() if fresh.expires_at else None,
            }
            if fresh.refresh_token:
                changes["refresh_token"] = fresh.refresh_token
            stamp = self._state.secrets.write(session, self._key, changes)
            if row is not None and row.status == "needs_reauth":
                row.status, row.status_reason = "active", ""
        # Only here, after the commit, may the new token be used.
        return self._use(_Stored(fresh.access_token, fresh.refresh_token or used, fresh.expires_at, stamp))

    def _give_up(self, holder: str, used: str, error: ReauthorizationNeededError) -> bool:
        """Mark the connection, unless other tokens were stored while this refresh token was being refused."""
        with self._database.session() as session:
            row = session.get(ConnectionRow, self._key, with_for_update=True)
            self._free(session, holder)
            if self._read(session, "record a refused token").refresh_token != used:
                return False
            _mark(row, error.what)
            return True

    def _note_failure(self, holder: str, error: BaseException) -> None:
        # An interrupt, or trouble with our own database, says nothing about the provider: others try for themselves.
        shared = isinstance(error, Exception) and not isinstance(error, StateUnavailableError | StorageFullError)
        with self._database.session() as session:
            self._free(
                session,
                holder,
                failed_at=self._database.now(session) if shared else None,
                failure_kind=type(error).__name__[:64],
                # The message of a foreign exception may hold anything, a token too: only its class is kept.
                failure=error.what if isinstance(error, FluxError) else "",
            )

    def _free(self, session: Session, holder: str, **values: object) -> None:
        session.execute(
            update(TokenLeaseRow)
            .where(TokenLeaseRow.connection_key == self._key, TokenLeaseRow.holder == holder)
            .values(holder="", expires_at=_LONG_AGO, **values)
        )

    @contextmanager
    def _heartbeat(self, holder: str) -> Iterator[None]:
        """Prolong the lease while the provider is being asked: retries may take longer than the lease."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(self._lease.total_seconds() / 3):
                try:
                    with self._database.session() as session:
                        session.execute(
                            update(TokenLeaseRow)
                            .where(TokenLeaseRow.connection_key == self._key, TokenLeaseRow.holder == holder)
                            .values(expires_at=self._database.now(session) + self._lease)
                        )
                except FluxError as error:
                    _log.warning("%s: the token lease could not be prolonged: %s", self._key, error.what)

        thread = threading.Thread(target=beat, name=f"flux-lease-{self._key}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _stamp(self, session: Session) -> datetime | None:
        return session.scalar(
            select(CredentialRow.updated_at).where(
                CredentialRow.connection_key == self._key, CredentialRow.name == "access_token"
            )
        )

    def _read(self, session: Session, purpose: str) -> _Stored:
        secrets = self._state.secrets.read(session, self._key, purpose)
        expires_at = secrets.get("expires_at")
        return _Stored(
            access_token=secrets.get("access_token"),
            refresh_token=secrets.get("refresh_token"),
            expires_at=_instant(expires_at, self._key) if expires_at else None,
            stamp=self._stamp(session),
        )


def _instant(text: str, connection: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ConfigurationError(
            "the stored `expires_at` is not an instant with a time zone",
            connection=connection,
            next_step="Connect the account again; write it as 2026-01-31T12:00:00Z or leave it out.",
        ) from None
    return moment


def _mark(row: ConnectionRow | None, reason: str) -> None:
    if row is not None:
        row.status, row.status_reason, row.updated_at = "needs_reauth", reason, datetime.now(UTC)


def _shared_failure(lease: TokenLeaseRow) -> FluxError:
    kind = getattr(errors, lease.failure_kind, None)
    if not (isinstance(kind, type) and issubclass(kind, FluxError)):
        kind = ProviderUnavailableError
    what = lease.failure or lease.failure_kind
    return kind(f"refreshing the token failed a moment ago ({what})", connection=lease.connection_key)
