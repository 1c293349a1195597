from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from sqlalchemy import select

from flux_pipelines.state import State, csrf_of
from flux_pipelines.state.models import SessionRow


def rows(state: State) -> list[SessionRow]:
    with state.database.reading() as session:
        return list(session.scalars(select(SessionRow)))


def ada(state: State) -> str:
    return state.people.sign_in("google:1234", "ada@example.com", "Ada Lovelace ñ")


def test_who_signed_in_is_found_until_signed_out(state: State) -> None:
    token = ada(state)
    person = state.people.find(token)
    assert person is not None
    assert (person.subject, person.email, person.name) == ("google:1234", "ada@example.com", "Ada Lovelace ñ")
    assert abs(person.expires_at - person.signed_in_at - timedelta(days=7)) < timedelta(seconds=1)
    state.people.sign_out(token)
    assert state.people.find(token) is None
    state.people.sign_out(token)


@pytest.mark.parametrize("invented", ["", "x", "\ud800", "\0", "x" * 100_000])
def test_nobody_is_found_by_a_token_that_was_not_given(state: State, invented: str) -> None:
    ada(state)
    assert state.people.find(invented) is None


def test_only_a_hash_of_the_token_is_kept(state: State) -> None:
    token = ada(state)
    (row,) = rows(state)
    assert token not in repr(vars(row))
    person = state.people.find(token)
    assert person is not None
    assert token not in repr(person)
    assert person.session_id == row.id != token
    assert state.people.find(person.session_id) is None, "what the database holds opens nothing"


def test_each_session_has_a_form_token_that_only_its_holder_can_know(state: State) -> None:
    one, other = ada(state), ada(state)
    first, second = state.people.find(one), state.people.find(other)
    assert first is not None
    assert second is not None
    assert first.csrf == csrf_of(one) != second.csrf
    assert first.csrf not in repr(first) + repr(vars(rows(state)[0]))
    assert len(first.csrf) == 64


def test_a_browser_without_a_person_costs_nothing_and_is_nobody(state: State) -> None:
    token = state.people.anonymous()
    assert len(token) >= 43
    assert token != state.people.anonymous()
    assert state.people.find(token) is None
    assert rows(state) == []


def test_signing_in_always_gives_another_token(state: State) -> None:
    assert len({ada(state) for _ in range(5)} | {state.people.anonymous()}) == 6


def test_a_person_who_does_nothing_is_signed_out_after_twelve_hours(state: State) -> None:
    token = ada(state)
    now = datetime.now(UTC)
    for hours in (11, 22, 33):
        with time_machine.travel(now + timedelta(hours=hours)):
            assert state.people.find(token) is not None
    with time_machine.travel(now + timedelta(hours=45, minutes=1)):
        assert state.people.find(token) is None
    with time_machine.travel(now + timedelta(hours=34)):
        assert state.people.find(token, idle=timedelta(minutes=30)) is None


def test_after_seven_days_everybody_signs_in_again(state: State) -> None:
    token = ada(state)
    now = datetime.now(UTC)
    for hours in range(6, 168, 6):
        with time_machine.travel(now + timedelta(hours=hours)):
            assert state.people.find(token) is not None
    with time_machine.travel(now + timedelta(days=7, seconds=1)):
        assert state.people.find(token) is None


def test_being_seen_is_written_down_once_a_minute_at_most(state: State) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    with time_machine.travel(now, tick=False):
        token = ada(state)
    seen = set()
    for seconds in (1, 59, 61, 90, 119):
        with time_machine.travel(now + timedelta(seconds=seconds), tick=False):
            state.people.find(token)
            seen.add(rows(state)[0].last_seen_at)
    assert seen == {now, now + timedelta(seconds=61)}


def test_one_person_can_be_signed_out_everywhere(state: State) -> None:
    mine = [ada(state) for _ in range(3)]
    theirs = state.people.sign_in("github:9", "grace@example.com", "Grace")
    assert state.people.sign_out_everywhere("google:1234") == 3
    assert [state.people.find(token) for token in mine] == [None] * 3
    assert state.people.find(theirs) is not None


def test_sessions_that_are_over_are_deleted(state: State) -> None:
    now = datetime.now(UTC)
    for age in (timedelta(days=8), timedelta(hours=13), timedelta(hours=1)):
        with time_machine.travel(now - age):
            ada(state)
    assert state.people.purge() == 2
    assert len(rows(state)) == 1
