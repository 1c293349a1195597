from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from flux_pipelines.domain.errors import DecryptionError
from flux_pipelines.state import State, Vault, generate_key


def test_secrets_come_back_and_are_replaced_whole(state: State, acme: str) -> None:
    state.secrets.put(acme, {"access_token": "a" * 5000, "expires_at": "2026-01-01T00:00:00Z"})
    assert state.secrets.get(acme, purpose="test")["access_token"] == "a" * 5000
    state.secrets.put(acme, {"access_token": "b"})
    assert state.secrets.get(acme, purpose="test") == {"access_token": "b"}
    state.secrets.delete(acme)
    assert state.secrets.get(acme, purpose="test") == {}


def test_every_reading_leaves_a_trace_of_names_purpose_and_process(state: State, acme: str) -> None:
    state.secrets.put(acme, {"client_id": "geheim-1", "client_secret": "geheim-2"})
    state.secrets.get(acme, purpose="refresh the token")
    (use,) = state.secrets.uses(acme)
    assert (use.connection, use.names, use.purpose) == (acme, ("client_id", "client_secret"), "refresh the token")
    assert use.process.endswith(f":{os.getpid()}")
    assert abs(use.at - datetime.now(UTC)) < timedelta(minutes=1)
    assert "geheim" not in repr(use)


def test_a_wrong_key_is_an_error_that_names_the_connection(state: State, acme: str, database_url: str) -> None:
    state.secrets.put(acme, {"access_token": "a"})
    with (
        State.open(database_url, Vault([generate_key()])) as other,
        pytest.raises(DecryptionError, match="square:acme: a stored credential cannot be decrypted"),
    ):
        other.secrets.get(acme, purpose="test")


def test_no_secret_is_in_the_file_in_clear(sqlite_url: str, vault: Vault) -> None:
    from flux_pipelines.domain.connection import Connection

    with State.open(sqlite_url, vault) as state:
        state.connections.add(Connection("square:acme", "acme"), {"access_token": "EAAl3ikZIe18J"})
        state.secrets.get("square:acme", purpose="test")
        folder = Path(str(make_url(sqlite_url).database)).parent
        assert b"EAAl3ikZIe18J" not in b"".join(path.read_bytes() for path in folder.iterdir())
