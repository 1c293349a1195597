"""Bodies of events are replaced, on both databases, and the old bytes are gone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.engine import make_url

from flux_pipelines.state import NewEvent, State


def without_ada(bodies: Sequence[bytes]) -> list[bytes]:
    return [body.replace(b"ada@example.com", b"-") for body in bodies]


def test_bodies_of_a_connection_are_replaced_whatever_their_status(state: State, database_url: str) -> None:
    body = b'{"email":"ada@example.com","more":"%s"}' % (b"x" * 9_000)  # more than a page of SQLite's
    account = {"mine": "A", "before it was connected": "A", "other": "B"}
    events = [
        NewEvent("square", name, "t", account[name], None, body, "square:a" if name == "mine" else None)
        for name in account
    ]
    events += [NewEvent("square", f"many {n}", "t", "A", None, body, "square:a") for n in range(600)]
    events.append(NewEvent("toast", "of another provider", "t", "A", None, body))
    state.inbox.add_many(events)
    ids = [event.id for event in state.inbox.recent(limit=1_000) if event.event_id == "mine"]
    state.inbox.keep(ids, "nothing to do")
    assert state.inbox.rewrite("square", "square:a", "A", without_ada) == 602
    assert state.inbox.rewrite("square", "square:a", "A", without_ada) == 0
    bodies = {event.event_id: event.body for event in state.inbox.recent(limit=1_000)}
    held = {name for name, left in bodies.items() if b"ada@" in left}
    assert held == {"other", "of another provider"}
    assert len(bodies) == len(events)
    assert state.inbox.rewrite("square", "square:b", "", without_ada) == 0, "no account is no account, not everybody's"
    assert state.inbox.rewrite("square", "square:b", "B", without_ada) == 1
    assert state.inbox.rewrite("toast", "toast:c", "A", without_ada) == 1
    if database_url.startswith("sqlite"):
        folder = Path(str(make_url(database_url).database)).parent
        assert b"ada@" not in b"".join(path.read_bytes() for path in folder.iterdir())
