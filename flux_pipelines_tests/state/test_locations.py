from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import time_machine

from flux_pipelines.domain.connection import Connection
from flux_pipelines.state import State


@dataclass(frozen=True)
class Store:
    location_id: str
    name: str = "Store"
    timezone: str = "America/New_York"
    currency: str = "USD"
    active: bool = True


def test_stores_come_back_by_id_with_the_time_they_were_seen(state: State, acme: str) -> None:
    assert state.locations.list(acme) == []
    state.locations.replace(acme, [Store("L2", "Café", "Asia/Tokyo", "JPY"), Store("L1", active=False)])
    first, second = state.locations.list(acme)
    assert (first.location_id, first.active) == ("L1", False)
    assert (second.location_id, second.name, second.timezone, second.currency, second.active) == (
        "L2",
        "Café",
        "Asia/Tokyo",
        "JPY",
        True,
    )
    assert abs(second.seen_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_store_the_provider_no_longer_names_stays_as_inactive(state: State, acme: str) -> None:
    state.locations.replace(acme, [Store("L1"), Store("L2")])
    state.locations.replace(acme, [Store("L2", "Renamed")])
    assert [(s.location_id, s.name, s.active) for s in state.locations.list(acme)] == [
        ("L1", "Store", False),
        ("L2", "Renamed", True),
    ]


def test_names_by_id_but_of_no_id_that_two_connections_have_for_different_stores(state: State) -> None:
    for key in ("square:a", "square:b"):
        state.connections.add(Connection(key, "tenant"), {"access_token": "t"})
    state.locations.replace(
        "square:a", [Store("L1", "Harbor"), Store("L2", "Same"), Store("L3", "Here"), Store("L4", "")]
    )
    state.locations.replace("square:b", [Store("L2", "Same"), Store("L3", "There")])
    assert state.locations.names() == {"L1": "Harbor", "L2": "Same"}


def test_what_is_too_old_is_asked_for_again(state: State, acme: str) -> None:
    state.locations.replace(acme, [Store("L1")])
    assert len(state.locations.list(acme, max_age=timedelta(hours=1))) == 1
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=2)):
        assert state.locations.list(acme, max_age=timedelta(hours=1)) == []
        assert len(state.locations.list(acme)) == 1


def test_a_location_names_the_connections_of_its_provider_that_have_it(state: State) -> None:
    for key in ("square:a", "square:b", "other:a"):
        state.connections.add(Connection(key, "tenant"), {"access_token": "t"})
        state.locations.replace(key, [Store("L1")])
    state.locations.replace("square:b", [Store("L2")])
    assert state.locations.owners("square", "L1") == ["square:a", "square:b"], "its past remains with whoever had it"
    assert state.locations.owners("square", "L2") == ["square:b"]
    assert state.locations.owners("other", "L2") == []
    assert state.locations.owners("squar_", "L1") == [], "a name is not a pattern"
