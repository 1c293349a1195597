"""The two ways into PostgreSQL's inbox store the same."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from flux_pipelines.state import Database, NewEvent
from flux_pipelines.state.inbox.event_insert import copied, insert
from flux_pipelines.state.inbox.inbox import Inbox

AT = datetime(2026, 3, 8, 9, 30, 0, 123456, tzinfo=UTC)
EVENTS = [
    NewEvent("square", "plain", "payment.updated", "ML1", AT, b'{"a": 1}', "square:acme", received_at=AT),
    NewEvent("toast", "bare", "", "", None, b"", None, received_at=AT),
    NewEvent(
        "shopify",
        "odd \U0001f600\n\t\\",
        "ñ",
        "\x01",
        datetime(1999, 12, 31, tzinfo=UTC),
        bytes(range(256)),
        received_at=AT,
    ),
]


@pytest.fixture
def database(migrated_postgres: str) -> Database:
    database = Database(migrated_postgres)
    with database.session() as session:
        session.execute(text("TRUNCATE inbox"))
    return database


def stored(database: Database) -> list[tuple[Any, ...]]:
    with database.session() as session:
        rows = session.execute(text("SELECT * FROM inbox ORDER BY event_id")).mappings().all()
    return [tuple(bytes(v) if isinstance(v, memoryview) else v for k, v in row.items() if k != "id") for row in rows]


def test_what_is_copied_is_what_is_inserted(database: Database) -> None:
    assert database.quickly(lambda connection: copied(connection, EVENTS))
    by_copy = stored(database)
    with database.session() as session:
        session.execute(text("TRUNCATE inbox"))
    database.quickly(lambda connection: insert(connection, EVENTS, probably_new=False))
    assert by_copy == stored(database)
    assert len(by_copy) == len(EVENTS)


def test_one_that_is_here_already_keeps_the_whole_group_from_being_copied_and_no_event_from_being_stored(
    database: Database,
) -> None:
    database.quickly(lambda connection: insert(connection, EVENTS[:1], probably_new=True))
    assert not database.quickly(lambda connection: copied(connection, EVENTS))
    assert len(stored(database)) == 1
    new = database.quickly(lambda connection: insert(connection, EVENTS, probably_new=True))
    assert new == {(event.provider, event.event_id) for event in EVENTS[1:]}
    assert len(stored(database)) == len(EVENTS)


def test_copying_is_tried_again_once_a_group_was_all_new(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bool] = []

    def watched(connection: Any, events: Any) -> bool:
        tried.append(copied(connection, events))
        return tried[-1]

    monkeypatch.setattr("flux_pipelines.state.inbox.event_insert.copied", watched)
    inbox = Inbox(database)
    assert inbox.add_many(EVENTS[:1]) == [True]
    assert inbox.add_many(EVENTS[:2]) == [False, True]
    assert inbox.add_many(EVENTS[:1]) == [False]
    assert inbox.add_many(EVENTS[2:]) == [True]
    more = NewEvent("square", "more", "t", "a", None, b"")
    assert inbox.add_many([more]) == [True]
    assert tried == [True, False, True]


def test_texts_are_not_copied_where_the_connection_is_not_utf_8(make_postgres_url: Callable[[], str]) -> None:
    database = Database(make_postgres_url())
    database.migrate()

    def run(connection: Any) -> set[tuple[str, str]]:
        connection.connection.set_client_encoding("LATIN1")
        latin = NewEvent("square", "ñ", "t", "a", None, b"", received_at=AT)
        assert not copied(connection, [latin])
        return insert(connection, [latin], probably_new=True)

    assert database.quickly(run) == {("square", "ñ")}
    assert [row[1] for row in stored(database)] == ["ñ"]
    database.close()
