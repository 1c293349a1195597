"""Tokens of machine clients: no refresh token, one sign-in for everybody, and seldom."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from flux_pipelines.domain.errors import ProviderUnavailableError, ReauthorizationNeededError
from flux_pipelines.state import State, TokenManager
from flux_pipelines_tests.state.endpoint import TokenSet

DAY = 86_400.0


class Authority:
    """Gives the same token until its last minute, like Toast. Secrets are checked as they are stored."""

    def __init__(self, state: State, key: str, life: float = DAY) -> None:
        self.state, self.key, self.life = state, key, life
        self.accepted = "secret"
        self.asked: list[datetime] = []
        self.number = 0
        self.ends = datetime(1970, 1, 1, tzinfo=UTC)
        state.secrets.put(key, {"client_id": "me", "client_secret": "secret"})

    def sign_in(self) -> TokenSet:
        now = datetime.now(UTC)
        self.asked.append(now)
        if self.state.secrets.get(self.key, purpose="test")["client_secret"] != self.accepted:
            raise ReauthorizationNeededError("the credentials are not accepted", connection=self.key)
        if self.ends - now <= timedelta(seconds=60):
            self.number, self.ends = self.number + 1, now + timedelta(seconds=self.life)
        return TokenSet(f"token-{self.number}", None, self.ends)

    def manager(self) -> TokenManager:
        def never(_token: str) -> TokenSet:
            raise AssertionError("there is nothing to refresh with")

        return TokenManager(self.state, self.key, never, sign_in=self.sign_in)


@pytest.fixture
def authority(state: State, acme: str) -> Authority:
    return Authority(state, acme)


def test_one_sign_in_serves_every_manager_and_thread(state: State, authority: Authority) -> None:
    managers = [authority.manager() for _ in range(4)]
    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda n: managers[n % 4].token(), range(32)))
    assert got == ["token-1"] * 32
    assert len(authority.asked) == 1
    found = state.secrets.get(authority.key, purpose="test")
    assert {*found} == {"client_id", "client_secret", "access_token", "expires_at"}


def test_it_is_replaced_in_its_last_minute_and_two_days_take_three_sign_ins(authority: Authority) -> None:
    manager = authority.manager()
    begin = datetime.now(UTC)
    with time_machine.travel(begin, tick=False) as clock:
        for minute in range(2 * 24 * 60):
            clock.move_to(begin + timedelta(minutes=minute, seconds=20))
            token = authority.manager().token() if minute % 60 == 0 else manager.token()
            assert token == f"token-{authority.number}"
            assert datetime.now(UTC) < authority.ends, "an expired token was given"
    # A manager that looks once a minute may come too early in one minute and find it expired in the next.
    assert 2 <= len(authority.asked) <= 4
    for one, other in zip(authority.asked, authority.asked[2:], strict=False):
        assert other - one > timedelta(hours=1), "more than two within an hour"


def test_a_token_that_was_given_out_in_its_last_minutes_is_not_asked_for_again_and_again(authority: Authority) -> None:
    begin = datetime.now(UTC)
    with time_machine.travel(begin, tick=False) as clock:
        authority.manager().token()
        clock.move_to(begin + timedelta(seconds=DAY - 150))
        authority.state.secrets.put(authority.key, {"client_id": "me", "client_secret": "secret"})
        manager = authority.manager()
        for second in range(0, 149, 5):
            clock.move_to(begin + timedelta(seconds=DAY - 150 + second))
            assert manager.token() == "token-1"
        assert len(authority.asked) == 2
        clock.move_to(begin + timedelta(seconds=DAY + 1))
        assert manager.token() == "token-2"


def test_after_a_rejection_it_signs_in_once(authority: Authority) -> None:
    manager = authority.manager()
    rejected = manager.token()
    authority.ends = datetime(1970, 1, 1, tzinfo=UTC)  # the provider has ended it
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: manager.renew(rejected), range(8))) == ["token-2"] * 8
    assert len(authority.asked) == 2
    assert authority.manager().token() == "token-2"


def test_a_rejected_token_that_is_given_again_fails_for_all_and_asks_once(authority: Authority) -> None:
    manager = authority.manager()
    rejected = manager.token()

    def renew(_n: int) -> str:
        with pytest.raises(ProviderUnavailableError, match="the same one"):
            manager.renew(rejected)
        return "failed"

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(renew, range(8))) == ["failed"] * 8
    assert len(authority.asked) == 2
    assert authority.state.connections.get(authority.key).status == "active"


def test_refused_credentials_mark_the_connection_and_new_ones_are_used(state: State, authority: Authority) -> None:
    authority.accepted = "another"
    with pytest.raises(ReauthorizationNeededError):
        authority.manager().token()
    assert state.connections.get(authority.key).status == "needs_reauth"
    with pytest.raises(ReauthorizationNeededError):
        authority.manager().token()
    assert len(authority.asked) == 1, "nobody tries what was refused"
    state.secrets.put(authority.key, {"client_id": "me", "client_secret": "another"})
    state.connections.set_status(authority.key, "active", "")
    assert authority.manager().token() == "token-1"


def test_a_sign_in_that_fails_early_leaves_the_present_token(authority: Authority) -> None:
    begin = datetime.now(UTC)
    with time_machine.travel(begin, tick=False) as clock:
        authority.manager().token()
        clock.move_to(begin + timedelta(seconds=DAY - 30))

        def down() -> TokenSet:
            raise ProviderUnavailableError("503", connection=authority.key)

        assert TokenManager(authority.state, authority.key, None, sign_in=down).token() == "token-1"


def test_a_person_may_sign_in_at_any_time_and_nothing_is_kept_alive(authority: Authority) -> None:
    manager = authority.manager()
    manager.refresh()
    manager.refresh()
    assert manager.token() == "token-1"
    assert len(authority.asked) == 2
    assert not manager.refresh_if_due(timedelta(days=7))
