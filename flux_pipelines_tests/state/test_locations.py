from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import time_machine

from flux_pipelines.domain.business_day import Earlier
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


def test_another_rule_holds_from_the_first_date_that_was_not_landed(state: State, acme: str) -> None:
    def keep(zone: str, cutoff_hour: int, landed_until: date | None) -> tuple[Earlier, ...]:
        state.locations.replace(acme, [Store("L1", timezone=zone)])
        first_new = None if landed_until is None else landed_until + timedelta(days=1)
        (told,) = state.locations.keep_calendars(acme, {"L1": zone}, cutoff_hour, lambda: first_new).values()
        (stored,) = state.locations.list(acme)
        assert stored.earlier == told
        return told

    york, angeles = "America/New_York", "America/Los_Angeles"
    ninth, tenth = date(2026, 3, 9), date(2026, 3, 10)
    assert keep(york, 0, None) == ()
    assert keep(york, 4, None) == (), "nothing has been landed by the other rule"
    assert keep(york, 4, ninth) == ()
    assert keep(angeles, 4, ninth) == (Earlier(tenth, york, 4),)
    assert keep(angeles, 5, ninth) == (Earlier(tenth, york, 4),), "nothing has been landed in between"
    assert keep(angeles, 6, tenth) == (Earlier(tenth, york, 4), Earlier(date(2026, 3, 11), angeles, 5))
    assert keep(angeles, 5, tenth) == (Earlier(tenth, york, 4),), "taken back"
    assert keep(york, 4, ninth) == (), "and the first change too"
