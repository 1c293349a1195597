"""A schema-driven fuzzer over the machine endpoints: whatever is sent, no 500, and answers are what the schema says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from flux_pipelines.domain.connection import Connection
from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings
from flux_pipelines.state.inbox.inbox import NewEvent

TOKEN: dict[str, str] = {}
FUZZ = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def _furnish(rooms: Runtime) -> None:
    """Put something of everything in, so that answers have something to show."""
    for name, status in (("acme", "active"), ("shut", "paused"), ("lost", "needs_reauth")):
        key = f"square:{name}"
        # Nothing listens there: a test of the connection finds the provider away, at once.
        connection = Connection(key, "Acme", f"M-{name}", settings={"base_url": "http://127.0.0.1:9"})
        rooms.state.connections.add(connection, {"access_token": "EAAA-not-a-real-token"})
        rooms.state.connections.set_status(key, status, "for the test")  # type: ignore[arg-type]
    rooms.state.sync_requests.add("square:acme", date(2026, 1, 1), date(2026, 1, 2), "ada@example.com", "for the test")
    rooms.state.alerts.raise_("needs_reauth", "square:lost", "Reconnect it.")
    rooms.state.inbox.add_many(
        [NewEvent("square", "e-1", "order.updated", "M-acme", datetime.now(UTC), b"{}", connection_key="square:acme")]
    )


@pytest.fixture
def furnished(
    request: pytest.FixtureRequest, tmp_path: Path, make_postgres_url: Callable[[], str]
) -> Iterator[RunningGateway]:
    url = make_postgres_url() if request.param == "postgresql" else None
    with Runtime(Settings(home=tmp_path, database_url=url), patient=False) as rooms:  # type: ignore[arg-type]
        _furnish(rooms)
        with RunningGateway(rooms) as running:
            _, TOKEN[running.url] = rooms.state.api_tokens.create("fuzzer", "command line (tests)")
            yield running


@pytest.mark.parametrize(
    ("furnished", "mode"),
    [("sqlite", "positive"), ("postgresql", "positive"), ("postgresql", "negative")],
    indirect=["furnished"],
)
def test_no_request_breaks_the_machine_endpoints(furnished: RunningGateway, mode: str) -> None:
    import schemathesis  # a second and a half: not for every process that collects tests

    headers = {"Authorization": f"Bearer {TOKEN[furnished.url]}"}
    schema = schemathesis.openapi.from_url(f"{furnished.url}/api/openapi.json", headers=headers)
    tried = {
        found.ok().label: _fuzz(found.ok(), schemathesis.GenerationMode(mode), headers)
        for found in schema.get_all_operations()
    }

    assert len(tried) >= 11
    if mode == "positive":
        # The requests did get through to what is behind.
        assert {200} <= tried["GET /api/v1/connections"]
        assert {200, 404, 409} <= tried["POST /api/v1/connections/{key}/pause"]


def _fuzz(operation: Any, mode: Any, headers: dict[str, str]) -> set[int]:
    """Try one operation; return the statuses that came."""
    statuses: set[int] = set()

    # Names that the fuzzer would hardly guess. To try a connection out takes seconds when its provider is away.
    known = "square:shut" if operation.path.endswith("/test") else "square:acme"

    @FUZZ
    @given(case=operation.as_strategy(generation_mode=mode), key=st.sampled_from([known, "square:lost", ""]))
    def fuzz(case: Any, key: str) -> None:
        if key and mode.is_positive and "key" in (case.path_parameters or {}):
            case.path_parameters["key"] = key
        # Every check that the library has: no 500, status, content type, headers and body as described, wrong values
        # refused, right ones not, nothing without a token.
        statuses.add(case.call_and_validate(headers=headers).status_code)

    fuzz()
    return statuses
