from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from sqlalchemy import select

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.state import State
from flux_pipelines.state.models import ApiTokenRow


def test_a_token_is_shown_once_and_found_again(state: State) -> None:
    token, plaintext = state.api_tokens.create("nightly export", "ada@example.com")
    assert plaintext.startswith("flux_")
    assert len(plaintext) >= 48
    found = state.api_tokens.find(plaintext)
    assert found is not None
    assert (found.id, found.name, found.created_by) == (token.id, "nightly export", "ada@example.com")
    assert found.scopes == ("read", "write")
    assert plaintext.startswith(found.prefix)
    assert plaintext not in repr(token) + repr(state.api_tokens.list())


def test_only_a_hash_is_kept(state: State) -> None:
    _, plaintext = state.api_tokens.create("x", "ada")
    with state.database.reading() as session:
        (row,) = session.scalars(select(ApiTokenRow))
        assert plaintext not in repr(vars(row))
        assert state.api_tokens.find(row.token_hash) is None


@pytest.mark.parametrize("invented", ["", "flux_", "flux_x", "\ud800", "\0", "x" * 100_000])
def test_what_is_no_token_is_not_found(state: State, invented: str) -> None:
    token, plaintext = state.api_tokens.create("x", "ada")
    assert state.api_tokens.find(invented) is None
    assert state.api_tokens.find(token.prefix) is None
    assert state.api_tokens.find(plaintext[:-1]) is None
    assert state.api_tokens.find(plaintext + " ") is None
    assert state.api_tokens.find(plaintext.upper()) is None


def test_a_revoked_token_ends_at_once_and_stays_in_the_list(state: State) -> None:
    token, plaintext = state.api_tokens.create("x", "ada")
    revoked = state.api_tokens.revoke(token.id)
    assert revoked.revoked_at is not None
    assert state.api_tokens.find(plaintext) is None
    assert [(t.id, t.usable) for t in state.api_tokens.list()] == [(token.id, False)]
    assert state.api_tokens.revoke(token.id).revoked_at == revoked.revoked_at
    with pytest.raises(ConfigurationError, match="flux tokens list"):
        state.api_tokens.revoke(12345)


def test_a_token_ends_when_it_expires(state: State) -> None:
    end = datetime.now(UTC) + timedelta(days=30)
    _, plaintext = state.api_tokens.create("x", "ada", end)
    with time_machine.travel(end - timedelta(seconds=2)):
        assert state.api_tokens.find(plaintext) is not None
    with time_machine.travel(end + timedelta(seconds=1)):
        assert state.api_tokens.find(plaintext) is None


def test_a_token_may_be_for_reading_only(state: State) -> None:
    token, _ = state.api_tokens.create("x", "ada", scopes=("read",))
    assert token.scopes == ("read",)
    both, _ = state.api_tokens.create("x", "ada", scopes=("write", "read"))
    assert both.scopes == ("read", "write")


@pytest.mark.parametrize(
    ("name", "expires_in", "scopes"),
    [(" ", None, ("read",)), ("x", -1, ("read",)), ("x", None, ()), ("x", None, ("admin",))],
)
def test_what_cannot_be_a_token_is_refused(
    state: State, name: str, expires_in: int | None, scopes: tuple[str, ...]
) -> None:
    expires_at = None if expires_in is None else datetime.now(UTC) + timedelta(seconds=expires_in)
    with pytest.raises(ConfigurationError):
        state.api_tokens.create(name, "ada", expires_at, scopes)  # type: ignore[arg-type]
    assert state.api_tokens.list() == []


def test_its_use_is_written_down_once_a_minute_at_most(state: State) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    _, plaintext = state.api_tokens.create("x", "ada")
    used = []
    for seconds in (1, 30, 62):
        with time_machine.travel(now + timedelta(seconds=seconds), tick=False):
            state.api_tokens.find(plaintext)
            used.append(state.api_tokens.list()[0].last_used_at)
    assert used == [now + timedelta(seconds=n) for n in (1, 1, 62)]


def test_records_of_tokens_that_ended_long_ago_are_deleted(state: State) -> None:
    past = datetime.now(UTC) - timedelta(days=400)
    with time_machine.travel(past):
        revoked, _ = state.api_tokens.create("revoked", "ada")
        state.api_tokens.revoke(revoked.id)
        state.api_tokens.create("expired", "ada", past + timedelta(days=5))
        state.api_tokens.create("living", "ada")
    assert state.api_tokens.purge() == 2
    assert [token.name for token in state.api_tokens.list()] == ["living"]
