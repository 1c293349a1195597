"""Effects wait in the outbox, change while they wait, and are one sender's at a time."""

from __future__ import annotations

import time
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.state import Effect, NewEffect, Sender, State
from flux_pipelines.state.outbox.effect import written

KEY = "books:acme"
ENTRY = "books:acme:1"


def entry(amount: str = "1.00", *, hold: str = "", key: str = ENTRY, connection: str = KEY) -> NewEffect:
    return NewEffect(key, connection, "entry", {"amount": amount}, hold)


def now(state: State, key: str = ENTRY) -> Effect:
    found = state.outbox.get(key)
    assert found is not None
    return found


def claimed(sender: Sender | None) -> tuple[Sender, Effect]:
    assert sender is not None
    (effect,) = sender.claim(10)
    return sender, effect


def test_the_same_payload_is_the_same_text_whatever_its_order() -> None:
    assert written({"a": 1, "b": ["é"]}) == written({"b": ["é"], "a": 1})
    assert written({"a": 1})[1] != written({"a": "1"})[1]


@pytest.mark.parametrize("payload", [{"a": 1.5}, {"a": [{"b": 0.1}]}, {"a": Decimal("1.5")}])
def test_amounts_are_text_or_integers(state: State, payload: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        state.outbox.put([NewEffect(ENTRY, KEY, "entry", payload)])
    assert state.outbox.get(ENTRY) is None


def test_what_is_put_again_is_the_same_effect_and_what_changed_is_a_new_version(state: State) -> None:
    assert state.outbox.put([entry()]) == ["created"]
    assert state.outbox.put([entry()]) == ["unchanged"]
    first = now(state)
    assert (first.version, first.status, first.payload) == (1, "pending", {"amount": "1.00"})
    assert state.outbox.put([entry("2.00"), entry(key="books:acme:2")]) == ["updated", "created"]
    second = now(state)
    assert (second.id, second.version, second.payload) == (first.id, 2, {"amount": "2.00"})
    assert second.idempotency_key != first.idempotency_key
    assert state.outbox.counts() == {"held": 0, "pending": 2, "sending": 0, "ambiguous": 0, "sent": 0, "failed": 0}


@pytest.mark.parametrize(
    "wrong",
    [
        [entry(), entry("2.00")],
        [entry(key="k" * 256)],
        [entry(connection="books:other")],
        [NewEffect(ENTRY, KEY, "receipt", {})],
    ],
)
def test_a_key_names_one_thing(state: State, wrong: list[NewEffect]) -> None:
    state.outbox.put([entry()])
    with pytest.raises(ConfigurationError):
        state.outbox.put([entry(key="books:acme:0"), *wrong])
    assert state.outbox.counts()["pending"] == 1, "all of them or none"


def test_what_changes_while_it_is_being_sent_is_sent_afterwards_as_an_update(state: State) -> None:
    state.outbox.put([entry()])
    with state.outbox.sender(KEY) as maybe:
        sender, effect = claimed(maybe)
        assert state.outbox.put([entry("2.00")]) == ["updated"]
        assert now(state).status == "sending"
        assert sender.sent(effect, "17", "a")
        assert now(state).status == "pending"
        (update,) = sender.claim(10)
        assert (update.payload, update.remote_id, update.remote_version) == ({"amount": "2.00"}, "17", "a")
        assert (update.sent_version, update.sent_hash) == (1, effect.payload_hash)
        assert sender.sent(update, "17", "b")
        assert sender.claim(10) == []
    assert (now(state).status, now(state).sent_version, now(state).remote_version) == ("sent", 2, "b")
    assert state.outbox.put([entry("2.00")]) == ["unchanged"]
    assert now(state).status == "sent"
    assert state.outbox.connections() == []


def test_what_must_wait_waits_although_its_last_version_is_being_sent(state: State) -> None:
    state.outbox.put([entry()])
    with state.outbox.sender(KEY) as maybe:
        sender, effect = claimed(maybe)
        state.outbox.put([entry("2.00", hold="the books are closed")])
        assert sender.sent(effect, "17")
        assert sender.claim(10) == []
    assert (now(state).status, now(state).reason, now(state).sent_version) == ("held", "the books are closed", 1)
    state.outbox.put([entry("2.00")])
    assert now(state).status == "pending"


def test_what_is_held_waits_until_its_reason_is_gone_or_a_person_says_so(state: State) -> None:
    state.outbox.put([entry(hold="no account for Merchandise")])
    assert (now(state).status, now(state).reason) == ("held", "no account for Merchandise")
    assert state.outbox.connections() == []
    state.outbox.put([entry()])
    assert (now(state).status, now(state).reason) == ("pending", "")
    state.outbox.put([entry(hold="the books are closed")])
    assert now(state).status == "held"
    assert state.outbox.retry([ENTRY]) == 1
    assert now(state).status == "pending"

    assert state.outbox.hold([ENTRY, "books:acme:none"], "ada@example.com", "looks odd") == 1
    assert state.outbox.put([entry("3.00")]) == ["updated"]
    assert (now(state).status, now(state).reason) == ("held", "looks odd"), "what a person holds stays held"
    assert state.outbox.retry() == 0, "all that failed, and not what is held"


def test_a_connection_has_one_sender_and_what_one_that_died_was_sending_is_looked_for(state: State) -> None:
    state.outbox.put([entry(), entry(key="books:other:1", connection="books:other")])
    short = timedelta(seconds=0.5)
    with state.outbox.sender(KEY, lease=short) as maybe:
        sender, effect = claimed(maybe)
        time.sleep(2 * short.total_seconds())
        assert sender.lasts(), "it is prolonged while its holder lives"
        with state.outbox.sender(KEY) as second:
            assert second is None
        with state.outbox.sender("books:other") as other:
            assert other is not None, "each connection has its own"
            assert [one.key for one in other.claim(10)] == ["books:other:1"]
            assert other.unresolved(10) == []
    # Its effect is under way still: the lease is not given back, it expires.
    with state.outbox.sender(KEY) as early:
        assert early is None
    time.sleep(short.total_seconds())
    with state.outbox.sender(KEY) as late:
        assert late is not None
        assert late.claim(10) == [], "it is not known whether it was written"
        (lost,) = late.unresolved(10)
        assert (lost.key, lost.version) == (effect.key, 1)
        assert late.unresolved(10) == []
        assert late.sent(lost, "17")
    assert now(state).status == "sent"


def test_what_a_sender_says_that_is_none_any_more_changes_nothing(state: State) -> None:
    state.outbox.put([entry()])
    with state.outbox.sender(KEY) as maybe:
        sender, effect = claimed(maybe)
        with state.database.session() as session:
            session.execute(text("update outbox_senders set holder = 'another'"))
            session.execute(text("update outbox set holder = 'another'"))
        assert not sender.lasts()
        assert sender.claim(10) == []
        assert not sender.sent(effect, "17")
        assert not sender.ambiguous(effect, "no answer", look_after=timedelta(0))
    assert (now(state).status, now(state).remote_id) == ("sending", "")


def test_a_person_says_what_became_of_an_ambiguous_one(state: State) -> None:
    state.outbox.put([entry(), entry(key="books:acme:2")])
    assert not state.outbox.resolve(ENTRY, "17"), "it is not ambiguous"
    with state.outbox.sender(KEY) as sender:
        assert sender is not None
        for effect in sender.claim(10):
            assert sender.ambiguous(effect, "no answer came", look_after=timedelta(minutes=1))
        assert sender.unresolved(10) == [], "it may be under way still"
    assert state.outbox.resolve(ENTRY, "17")
    assert state.outbox.resolve("books:acme:2", None)
    assert (now(state).status, now(state).remote_id, now(state).sent_version) == ("sent", "17", 1)
    assert now(state, "books:acme:2").status == "pending"


def test_what_fails_waits_longer_each_time_and_is_given_up(state: State) -> None:
    state.outbox.put([entry()])
    waits = []
    for _ in range(8):
        with state.outbox.sender(KEY) as maybe:
            sender, effect = claimed(maybe)
            assert sender.put_off(effect, "500")
        due = now(state).due_at
        assert due is not None
        waits.append(round((due - now(state).updated_at).total_seconds()))
        with state.database.session() as session:
            session.execute(text("update outbox set due_at = null"))
    assert waits == [30, 60, 120, 240, 480, 960, 1920, 3600]
    assert now(state).status == "failed"
    state.outbox.put([entry("2.00")])
    assert (now(state).status, now(state).attempts) == ("pending", 0), "what changed may be taken"


def test_the_newest_are_shown_first(state: State) -> None:
    state.outbox.put([entry(), entry(key="books:acme:2", hold="wait")])
    assert [one.key for one in state.outbox.recent()] == ["books:acme:2", ENTRY]
    assert [one.key for one in state.outbox.recent(status="held")] == ["books:acme:2"]
    assert state.outbox.recent(connection_key="books:other") == []
    assert state.outbox.counts("books:other")["held"] == 0
