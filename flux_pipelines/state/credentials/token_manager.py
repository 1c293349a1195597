"""The bearer token of a connection: kept fresh by one refresher at a time across threads, processes and hosts.

The refresher holds a lease, a row that expires by itself, so that one that dies is taken over. New tokens are committed
before anybody uses them: a provider that rotates refresh tokens has already forgotten the old one. Where a provider
gives the old one a grace, it is kept until the new one has been used with success, and tried once should the new one be
refused.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from flux_pipelines.domain.errors import (
    ConfigurationError,
    FluxError,
    ProviderUnavailableError,
    ReauthorizationNeededError,
    StateUnavailableError,
    StorageFullError,
)
from flux_pipelines.state.credentials.stored_tokens import PREVIOUS, StoredTokens, Tokens
from flux_pipelines.state.credentials.token_leases import TokenLease
from flux_pipelines.state.models import ConnectionRow, CredentialRow

if TYPE_CHECKING:
    from flux_pipelines.state.state import State

_log = logging.getLogger(__name__)

#: How often a token in memory is compared with the stored one, which may have been replaced by hand (s).
_LOOK_EVERY = 30.0


class TokenManager:
    """Gives a connection's bearer token (`domain.credentials.Credentials`). Safe to use from threads.

    Args:
        state: where the tokens are stored.
        connection_key: whose.
        refresh: calls the provider's token endpoint with the refresh token; None for a token that cannot be refreshed,
            which also holds when no refresh token is stored. It raises ReauthorizationNeededError when the provider no
            longer accepts the refresh token; any other error is taken as passing.
        grace: whether the provider accepts the refresh token before the present one for a while.
        sign_in: for a machine client: gets a token with the credentials stored for it, instead of `refresh`. It raises
            ReauthorizationNeededError when the provider does not accept them.
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
        grace: bool = False,
        sign_in: Callable[[], Tokens] | None = None,
        lease: float = 30.0,
        patience: float = 300.0,
        cool_off: float = 1.0,
    ) -> None:
        self._state = state
        self._database = state.database
        self._key = connection_key
        self._refresh = refresh
        self._grace = grace
        self._sign_in = sign_in
        self._same_again: tuple[str, float] = (
            "",
            0.0,
        )  # a rejected token that was given again, and until when it is known
        self._lease = TokenLease(state.database, connection_key, timedelta(seconds=lease), timedelta(seconds=cool_off))
        self._patience = patience
        self._mutex = threading.Lock()
        self._known: StoredTokens | None = None
        self._look_at = 0.0

    def __repr__(self) -> str:
        return f"TokenManager({self._key!r})"

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
            ProviderUnavailableError: signing in gave the rejected token again.
            FluxError: the refresh failed.

        """
        with self._mutex:
            same, until = self._same_again
            fresh = rejected if same == rejected and time.monotonic() < until else self._obtain(rejected=rejected)
            if fresh != rejected or self._sign_in is None:
                return fresh
            # Every thread that had it rejected comes here: one sign-in must do for all of them.
            self._same_again = (rejected, time.monotonic() + _LOOK_EVERY)
        raise ProviderUnavailableError(
            "the provider rejects its token, and gives the same one when asked for another", connection=self._key
        )

    def refresh(self) -> None:
        """Refresh now, whether it is time or not. Several that ask at once cause one refresh.

        Raises:
            ConfigurationError: the token cannot be refreshed.
            ReauthorizationNeededError: the provider no longer accepts the connection.
            FluxError: the refresh failed.

        """
        stored = self._peek()
        if self._sign_in is not None:
            with self._mutex:
                self._obtain(rejected=stored.access_token or "")
            return
        if self._refresh is None or stored.refresh_token is None:
            raise ConfigurationError(
                "its token cannot be refreshed: there is no refresh token",
                connection=self._key,
                next_step="Connect the account again to get one, if its provider gives any.",
            )
        self.renew(stored.access_token or "")

    def refresh_if_due(self, within: timedelta) -> bool:
        """Refresh ahead of time when a token expires within this time, in the last quarter of its life.

        A machine client needs none of that: it signs in when it is used.

        Returns:
            Whether it was refreshed; False too when it cannot be, or waits to be reconnected.

        Raises:
            ReauthorizationNeededError: the provider no longer accepts the connection; it has just been marked.
            FluxError: the refresh failed; the present token may still be good.

        """
        stored = self._peek()
        if self._sign_in is not None or self._refresh is None or stored.refresh_token is None:
            return False
        if not stored.due_within(within):
            return False
        if self._state.connections.get(self._key).status in ("needs_reauth", "disconnected"):
            return False
        self.renew(stored.access_token or "")
        return True

    def _peek(self) -> StoredTokens:
        with self._database.session() as session:
            return self._read(session, "see when the token expires")

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

    def _use(self, stored: StoredTokens) -> str:
        if stored.access_token is None:  # narrowed by every caller
            raise AssertionError("a token that is used exists")
        # A token that is due but still valid is served while somebody else refreshes it: look again soon.
        self._look_at = time.monotonic() + (1.0 if stored.due() else _LOOK_EVERY)
        self._known = stored
        return stored.access_token

    def _changed(self, known: StoredTokens) -> bool:
        with self._database.reading() as session:
            stamp = self._stamp(session)
        if stamp != known.stamp:
            return True
        self._look_at = time.monotonic() + _LOOK_EVERY
        return False

    def _enter(self, rejected: str | None, waited: bool) -> tuple[StoredTokens | None, str | None]:
        """Look at what is stored and decide.

        Returns:
            (stored, None): use this token. (stored, holder): refresh it; the lease is ours. (None, None): wait.

        """
        with self._database.reading() as session:
            # A first look without any lock: most of those who wait only need this.
            stamp = self._stamp(session)
            held = self._lease.held(session)
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
            can_refresh = self._sign_in is not None or (self._refresh is not None and stored.refresh_token is not None)
            if not can_refresh:
                if good:
                    return stored, None
                fault = self._unrefreshable(session, stored, row)
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
        if row is not None and row.status == "needs_reauth":
            return ReauthorizationNeededError(
                f"the connection needs to be authorised again ({row.status_reason})", connection=self._key
            )
        return self._lease.take(session, waited=waited)

    def _unrefreshable(self, session: Session, stored: StoredTokens, row: ConnectionRow | None) -> FluxError:
        if stored.access_token is None:
            return ConfigurationError(
                "the connection has no token stored",
                connection=self._key,
                next_step="Connect the account again with its secrets.",
            )
        reason = "its access token has expired" if not stored.valid() else "the provider rejected its access token"
        self._mark(session, row, reason)
        return ReauthorizationNeededError(
            f"{reason}, and there is no refresh token to get another", connection=self._key
        )

    # --- refreshing under the lease ---

    def _refresh_as(self, holder: str, stored: StoredTokens | None, rejected: str | None) -> str | None:
        """Refresh as the lease's holder; None when somebody has stored other tokens meanwhile: look again."""
        if stored is None:
            raise AssertionError("only what can be refreshed is leased")
        try:
            with self._lease.prolonged(holder):
                used, fresh = self._replacement(stored)
                return self._store_patiently(holder, stored, used, fresh)
        except ReauthorizationNeededError as error:
            if self._give_up(holder, stored, error):
                raise
            return None
        except BaseException as error:
            # Every way out frees the lease, an interrupt included.
            self._lease.fail(holder, error)
            usable = stored.valid() and stored.access_token != rejected
            if usable and isinstance(error, FluxError) and error.rerun_helps:
                _log.warning("%s: refreshing early failed, the present token still holds: %s", self._key, error.what)
                return self._use(stored)
            raise

    def _replacement(self, stored: StoredTokens) -> tuple[str, Tokens]:
        """Get another token; return what it was got with too, where that is a refresh token."""
        if self._sign_in is not None:
            return "", self._sign_in()
        if stored.refresh_token is None or self._refresh is None:
            raise AssertionError("only what can be refreshed is leased")
        return self._exchange(self._refresh, stored.refresh_token, stored.previous_refresh_token)

    def _exchange(self, refresh: Callable[[str], Tokens], newest: str, previous: str | None) -> tuple[str, Tokens]:
        """Refresh with the newest refresh token, or else once with the one before; return which it was."""
        try:
            return newest, refresh(newest)
        except ReauthorizationNeededError:
            # Not when other tokens were stored meanwhile: showing an old one then may end them too.
            if previous is None or not self._grace or self._peek().refresh_token != newest:
                raise
        _log.warning("%s: the newest refresh token was refused; trying the one before it", self._key)
        return previous, refresh(previous)

    def _store_patiently(self, holder: str, stored: StoredTokens, used: str, fresh: Tokens) -> str | None:
        """Store the new tokens, however long the database is busy or full: nobody else has them."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return self._store(holder, stored, used, fresh)
            except (StateUnavailableError, StorageFullError) as error:
                if time.monotonic() > deadline:
                    raise
                _log.warning("%s: a new token could not be stored yet: %s", self._key, error.what)
                time.sleep(0.5)

    def _store(self, holder: str, stored: StoredTokens, used: str, fresh: Tokens) -> str | None:
        changes = stored.after(used, fresh, grace=self._grace)
        with self._database.session() as session:
            self._state.secrets.hold_keys(session)
            row = session.get(ConnectionRow, self._key, with_for_update=True)
            self._lease.free(session, holder)
            if self._read(session, "store a new token").rests_on != stored.rests_on:
                # The lease ran out (this process was stopped for long) or the account was connected anew.
                return None
            self._state.secrets.write(session, self._key, changes)
            if row is not None and row.status == "needs_reauth":
                row.status, row.status_reason = "active", ""
                self._state.alerts.follow_status(session, self._key, "active", "")
            kept = self._read(session, "use the new token")
        # Only here, after the commit, may the new token be used.
        return self._use(kept)

    def _give_up(self, holder: str, used: StoredTokens, error: ReauthorizationNeededError) -> bool:
        """Mark the connection, unless other tokens were stored while these were being refused."""
        with self._database.session() as session:
            self._state.secrets.hold_keys(session)
            row = session.get(ConnectionRow, self._key, with_for_update=True)
            self._lease.free(session, holder)
            if self._read(session, "record a refused token").rests_on != used.rests_on:
                return False
            # The one before was refused as well, or is of no use: it is never shown again.
            self._state.secrets.write(session, self._key, {PREVIOUS: None})
            self._mark(session, row, error.what)
            return True

    def _stamp(self, session: Session) -> datetime | None:
        return session.scalar(
            select(CredentialRow.updated_at).where(
                CredentialRow.connection_key == self._key, CredentialRow.name == "access_token"
            )
        )

    def _read(self, session: Session, purpose: str) -> StoredTokens:
        secrets = self._state.secrets.read(session, self._key, purpose)
        return StoredTokens.of(secrets, self._stamp(session), self._key, signs_in=self._sign_in is not None)

    def _mark(self, session: Session, row: ConnectionRow | None, reason: str) -> None:
        if row is not None:
            row.status, row.status_reason, row.updated_at = "needs_reauth", reason, datetime.now(UTC)
            self._state.alerts.follow_status(session, self._key, "needs_reauth", reason)
