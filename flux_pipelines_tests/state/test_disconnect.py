"""What is left of a connection that a person gave up, and when credentials expire, on both databases."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from flux_pipelines.domain.errors import UnknownConnectionError
from flux_pipelines.providers.base import Location
from flux_pipelines.state import State


def test_disconnecting_forgets_the_credentials_and_keeps_the_rest(state: State, acme: str) -> None:
    state.secrets.put(acme, {"access_token": "a", "refresh_token": "r"})
    state.locations.replace(acme, [Location("L1", "Pier", "Europe/Oslo", "NOK")])
    first = state.syncs.begin("square", [acme], date(2026, 1, 1), date(2026, 1, 2))
    state.alerts.raise_("consent_expiring", acme, "soon")
    gone = state.connections.disconnect(acme, "disconnected by ada@example.com")
    assert (gone.status, gone.status_reason) == ("disconnected", "disconnected by ada@example.com")
    assert state.connections.get(acme) == gone
    assert state.secrets.get(acme, purpose="test") == {}
    assert [location.name for location in state.locations.list(acme)] == ["Pier"]
    assert state.alerts.open() == []
    again = state.syncs.begin("square", [acme], date(2026, 1, 1), date(2026, 1, 2))
    assert not again.resumed
    assert again.token != first.token


def test_only_a_connection_that_exists_is_disconnected(state: State) -> None:
    with pytest.raises(UnknownConnectionError):
        state.connections.disconnect("square:nobody", "why")


def test_expiries_are_told_without_a_trace_of_reading(state: State, acme: str) -> None:
    moment = datetime(2026, 12, 1, 12, tzinfo=UTC)
    stored = {"access_token": "a", "expires_at": moment.isoformat(), "refresh_token_expires_at": "not an instant"}
    state.secrets.put(acme, stored)
    assert state.secrets.expiries() == {acme: {"expires_at": moment}}
    assert state.secrets.uses(acme) == []
    state.secrets.put(acme, {"access_token": "a"})
    assert state.secrets.expiries() == {}
