from __future__ import annotations

import pickle
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from sqlalchemy import func, select

from flux_pipelines.domain.errors import AuthorizationRefusedError
from flux_pipelines.state import State
from flux_pipelines.state.models import AuthorizationRow
from flux_pipelines_tests.state import workers
from flux_pipelines_tests.state.processes import together

PAYLOAD = {"verifier": "geheim", "nonce": "n", "tenant": "ñ", "days": 3}


def begin(state: State, **options: float) -> str:
    return state.authorizations.begin("connect", "square", session="session", payload=PAYLOAD, **options)


def refusal(
    state: State, token: str, purpose: str = "connect", provider: str = "square", session: str = "session"
) -> str:
    with pytest.raises(AuthorizationRefusedError) as caught:
        state.authorizations.redeem(token, purpose, provider, session)  # type: ignore[arg-type]
    return caught.value.reason


def rows(state: State) -> list[AuthorizationRow]:
    with state.database.reading() as session:
        return list(session.scalars(select(AuthorizationRow)))


def test_a_round_trip_gives_its_payload_once(state: State) -> None:
    token = begin(state)
    assert state.authorizations.redeem(token, "connect", "square", "session") == PAYLOAD
    assert refusal(state, token) == "used"
    assert refusal(state, token, session="thief") == "used"


def test_states_are_long_and_never_the_same(state: State) -> None:
    tokens = {begin(state) for _ in range(20)}
    assert len(tokens) == 20
    assert all(len(token) >= 43 for token in tokens)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"session": "another"}, "other_session"),
        ({"session": ""}, "other_session"),
        ({"provider": "google"}, "wrong_provider"),
        ({"purpose": "sign_in"}, "wrong_provider"),
    ],
)
def test_a_state_that_is_brought_by_another_is_refused_and_worth_nothing_then(
    state: State, changed: dict[str, str], reason: str
) -> None:
    token = begin(state)
    assert refusal(state, token, **changed) == reason
    assert refusal(state, token) == "used"


@pytest.mark.parametrize("invented", ["", "x", "\0", "\ud800", "ñ" * 10_000, "' OR 1=1 --"])
def test_a_state_that_was_never_begun(state: State, invented: str) -> None:
    begin(state)
    assert refusal(state, invented) == "unknown"


def test_a_state_is_good_for_ten_minutes(state: State) -> None:
    late, in_time = begin(state), begin(state)
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=595)):
        assert state.authorizations.redeem(in_time, "connect", "square", "session") == PAYLOAD
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=601)):
        assert refusal(state, late) == "expired"
        assert refusal(state, late) == "used"


def test_of_sixteen_processes_that_redeem_at_once_one_wins(state: State, database_url: str, key_file: Path) -> None:
    outcomes = together(16, workers.redeem, database_url, key_file, begin(state))
    assert Counter(outcomes) == {"geheim": 1, "used": 15}


def test_neither_state_nor_session_nor_payload_is_kept_in_clear(state: State) -> None:
    token = begin(state)
    (row,) = rows(state)
    kept = repr(list(vars(row).values()))
    assert token not in kept
    assert "'session'" not in kept
    assert "geheim" not in kept
    state.authorizations.redeem(token, "connect", "square", "session")
    (row,) = rows(state)
    assert row.ciphertext == "", "what was needed once is not kept"


def test_whatever_was_wrong_the_browser_is_told_the_same(state: State) -> None:
    said = set()
    for changed in ({"session": "x"}, {"provider": "y"}):
        with pytest.raises(AuthorizationRefusedError) as caught:
            state.authorizations.redeem(
                begin(state), **{"purpose": "connect", "provider": "square", "session": "session", **changed}
            )  # type: ignore[arg-type]
        said.add(str(caught.value))
    with pytest.raises(AuthorizationRefusedError) as caught:
        state.authorizations.redeem("invented", "connect", "square", "session")
    said.add(str(caught.value))
    assert len(said) == 1
    assert "Start again" in said.pop()
    assert pickle.loads(pickle.dumps(caught.value)).reason == "unknown"


def test_a_replay_is_told_from_an_invention_for_a_day(state: State) -> None:
    token = begin(state)
    state.authorizations.redeem(token, "connect", "square", "session")
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=23)):
        assert state.authorizations.purge(timedelta(0)) == 0
        assert refusal(state, token) == "used"
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=25)):
        assert state.authorizations.purge() == 1
        assert refusal(state, token) == "unknown"
    with state.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(AuthorizationRow)) == 0


def test_a_round_trip_survives_a_rotation_of_the_keys(state: State) -> None:
    token = begin(state)
    with time_machine.travel(datetime.now(UTC) - timedelta(hours=1)):
        begin(state)
    assert state.rotate_keys(drop_old=True) == 1, "what has expired is emptied, not encrypted anew"
    assert state.authorizations.redeem(token, "connect", "square", "session") == PAYLOAD
