from __future__ import annotations

import dataclasses
from datetime import date

import pytest
from sqlalchemy import text

from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import ConfigurationError, UnknownConnectionError
from flux_pipelines.state import State, TokenManager
from flux_pipelines_tests.state import workers
from flux_pipelines_tests.state.endpoint import TokenSet
from flux_pipelines_tests.state.processes import together
from flux_pipelines_tests.state.test_locations import Store


def test_a_connection_comes_back_as_it_was_added(state: State) -> None:
    connection = Connection("square:acme", "acme", "MLQW2", settings={"cutoff_hour": 4, "base_url": "https://ñ.test"})
    assert state.connections.add(connection) == connection
    assert state.connections.get("square:acme") == connection
    assert state.connections.list() == [connection]


def test_a_name_is_taken_once(state: State, acme: str) -> None:
    with pytest.raises(ConfigurationError, match="flux connections remove square:acme"):
        state.connections.add(Connection(acme, "other"), {"access_token": "theirs"})
    assert state.connections.get(acme).tenant == "acme"
    assert state.secrets.get(acme, purpose="test") == {}


def test_of_processes_that_add_the_same_name_one_wins_with_its_own_secrets(
    state: State, database_url: str, key_file: object
) -> None:
    outcomes = together(6, workers.add_connection, database_url, key_file, "square:raced")
    assert sorted(outcomes) == ["ConfigurationError"] * 5 + ["added"]
    winner = outcomes.index("added")
    assert state.connections.get("square:raced").tenant == f"tenant-{winner}"
    assert state.secrets.get("square:raced", purpose="test") == {"access_token": f"token-{winner}"}


@pytest.mark.parametrize("key", ["acme", "Square:acme", "square:", "square:a b", "square:acme'; DROP TABLE x"])
def test_a_name_of_another_form_is_refused(state: State, key: str) -> None:
    with pytest.raises(ConfigurationError, match="provider:name"):
        state.connections.add(Connection(key, "acme"))


def test_listing_by_provider_and_status(state: State) -> None:
    for key in ("square:b", "square:a", "square_x:c", "toast:d"):
        state.connections.add(Connection(key, "acme"))
    state.connections.set_status("square:b", "paused", "paused by a person")
    # `_` is a wildcard in SQL's LIKE and must not be one here.
    assert [c.key for c in state.connections.list("square")] == ["square:a", "square:b"]
    assert [c.key for c in state.connections.list("square_x")] == ["square_x:c"]
    assert [c.key for c in state.connections.list(active_only=True)] == ["square:a", "square_x:c", "toast:d"]
    assert state.connections.list("shopify") == []


def test_status_settings_and_account_change_alone(state: State, acme: str) -> None:
    changed = state.connections.set_status(acme, "needs_reauth", "revoked")
    assert (changed.status, changed.status_reason) == ("needs_reauth", "revoked")
    assert state.connections.update_settings(acme, {"cutoff_hour": 4, "requests_per_minute": 60}).cutoff_hour == 4
    assert state.connections.update_settings(acme, {"cutoff_hour": None}).settings == {"requests_per_minute": 60}
    state.connections.set_account(acme, "MLQW2")
    assert state.connections.get(acme) == dataclasses.replace(
        changed, settings={"requests_per_minute": 60}, account_id="MLQW2"
    )
    with pytest.raises(ConfigurationError, match="not a connection status"):
        state.connections.set_status(acme, "broken")  # type: ignore[arg-type]


def test_an_unknown_connection_is_named(state: State) -> None:
    for attempt in (
        lambda: state.connections.get("square:x"),
        lambda: state.connections.remove("square:x"),
        lambda: state.connections.set_status("square:x", "active"),
        lambda: state.connections.update_settings("square:x", {}),
        lambda: state.connections.set_account("square:x", "a"),
        lambda: state.secrets.get("square:x", purpose="test"),
        lambda: state.secrets.put("square:x", {"access_token": "a"}),
        lambda: state.locations.replace("square:x", []),
        lambda: state.cursors.set("c", 1, connection="square:x"),
    ):
        with pytest.raises(UnknownConnectionError, match=r"'square:x'.*flux connections list"):
            attempt()


def test_removing_takes_everything_that_belongs_to_it_and_nothing_else(state: State, acme: str) -> None:
    state.connections.add(Connection("square:other", "other"), {"access_token": "theirs"})
    for key in (acme, "square:other"):
        state.secrets.put(key, {"refresh_token": "r"})
        TokenManager(state, key, lambda _t: TokenSet("a", None, None)).token()
        state.locations.replace(key, [Store("L1")])
        state.cursors.set(f"changes/{key}", "2026-01-01", connection=key)
    first = state.syncs.begin("square", [acme, "square:other"], date(2026, 1, 1), date(2026, 1, 2))
    state.connections.remove(acme)
    with state.database.reading() as session:
        for table in ("credentials", "token_leases", "locations", "cursors"):
            owners = set(session.scalars(text(f"SELECT connection_key FROM {table}")))
            assert owners == {"square:other"}, table
    # Another account under the same name must not go on where this one stopped.
    state.connections.add(Connection(acme, "acme"))
    again = state.syncs.begin("square", [acme, "square:other"], date(2026, 1, 1), date(2026, 1, 2))
    assert again.token != first.token
    assert not again.resumed
    assert state.locations.list(acme) == []
