from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine

from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.state import NewEvent, State
from flux_pipelines_tests.state import workers
from flux_pipelines_tests.state.calls import call
from flux_pipelines_tests.state.processes import together


def kinds(state: State) -> list[tuple[str, str]]:
    return [(alert.kind, alert.connection_key) for alert in state.alerts.open()]


def test_an_alert_is_open_once_until_it_is_resolved(state: State) -> None:
    assert state.alerts.raise_("reconcile_short", "square:a", "2 orders missing")
    assert not state.alerts.raise_("reconcile_short", "square:a", "3 orders missing")
    (alert,) = state.alerts.open()
    assert (alert.message, alert.resolved_at, alert.acknowledged_by) == ("3 orders missing", None, "")
    assert state.alerts.resolve("reconcile_short", "square:a")
    assert not state.alerts.resolve("reconcile_short", "square:a")
    assert state.alerts.open() == []
    assert state.alerts.raise_("reconcile_short", "square:a", "again")
    (again,) = state.alerts.open()
    assert again.id != alert.id


def test_alerts_of_other_kinds_and_connections_are_others(state: State) -> None:
    for kind, key in (("inbox_failed", ""), ("inbox_failed", "square:a"), ("webhooks_failing", "square:a")):
        assert state.alerts.raise_(kind, key, "x")  # type: ignore[arg-type]
    assert kinds(state) == [("webhooks_failing", "square:a"), ("inbox_failed", "square:a"), ("inbox_failed", "")]
    state.alerts.resolve("inbox_failed", "")
    assert len(kinds(state)) == 2


def test_an_alert_about_parts_is_open_until_the_last_of_them_is_mended(state: State) -> None:
    state.connections.add(Connection("square:a", "a"))

    def follow(broken: dict[str, str], *mended: str, key: str = "square:a") -> dict[str, str]:
        state.alerts.follow("records_damaged", key, broken, mended, lambda left: ", ".join(sorted(left)))
        return {alert.connection_key: alert.message for alert in state.alerts.open()}

    assert follow({}, "orders|1") == {}
    assert follow({"orders|1": "cut off", "orders|2": "gone"}) == {"square:a": "orders|1, orders|2"}
    assert follow({"payments|1": "gone"}, "orders|1", "orders|9") == {"square:a": "orders|2, payments|1"}
    assert state.alerts.parts("records_damaged", "square:a") == {"orders|2": "gone", "payments|1": "gone"}
    assert follow({"orders|2": "cut off"}, "orders|2") == {"square:a": "orders|2, payments|1"}, (
        "it is broken all the same"
    )
    assert follow({}, "orders|2", "payments|1") == {}
    assert state.alerts.parts("records_damaged", "square:a") == {}
    assert follow({"orders|1": "gone"}, key="square:removed") == {}


def test_an_alert_that_somebody_has_seen_stays_open(state: State) -> None:
    state.alerts.raise_("inbox_failed", "", "x")
    (alert,) = state.alerts.open()
    state.alerts.acknowledge(alert.id, "ada@example.com")
    state.alerts.acknowledge(alert.id, "grace@example.com")
    (seen,) = state.alerts.open()
    assert seen.acknowledged_by == "ada@example.com"
    assert seen.acknowledged_at is not None
    with pytest.raises(ConfigurationError, match="no alert"):
        state.alerts.acknowledge(12345, "ada")


def test_an_unknown_kind_is_refused(state: State) -> None:
    with pytest.raises(ConfigurationError, match="needs_reauth"):
        state.alerts.raise_("nonsense", "", "x")  # type: ignore[arg-type]


def test_processes_that_raise_the_same_alert_open_one(state: State, database_url: str, key_file: Path) -> None:
    assert sum(together(6, workers.raise_alerts, database_url, key_file, 10)) == 1
    assert len(state.alerts.open()) == 1


def test_a_connection_that_must_be_reconnected_has_an_alert_until_it_is(state: State, acme: str) -> None:
    state.connections.set_status(acme, "needs_reauth", "a person revoked it")
    (alert,) = state.alerts.open()
    assert (alert.kind, alert.connection_key) == ("needs_reauth", acme)
    assert "a person revoked it" in alert.message
    state.connections.set_status(acme, "active")
    assert state.alerts.open() == []


def test_new_secrets_resolve_what_was_wrong_with_the_old(state: State, acme: str) -> None:
    state.connections.set_status(acme, "needs_reauth", "revoked")
    state.alerts.raise_("consent_expiring", acme, "in a week")
    state.alerts.raise_("reconcile_short", acme, "x")
    state.secrets.put(acme, {"access_token": "a"})
    assert kinds(state) == [("reconcile_short", acme)]


@pytest.mark.parametrize("how", ["removed", "disconnected"])
def test_alerts_end_with_their_connection(state: State, acme: str, how: str) -> None:
    state.connections.add(Connection("square:other", "other"))
    for key in (acme, "square:other"):
        state.alerts.raise_("webhooks_failing", key, "x")
    if how == "removed":
        state.connections.remove(acme)
    else:
        state.connections.disconnect(acme, "disconnected by ada")
    assert kinds(state) == [("webhooks_failing", "square:other")]


def test_alerts_resolved_long_ago_are_deleted(state: State) -> None:
    with time_machine.travel(datetime.now(UTC) - timedelta(days=400)):
        state.alerts.raise_("inbox_failed", "a", "x")
        state.alerts.resolve("inbox_failed", "a")
        state.alerts.raise_("inbox_failed", "b", "x")
    assert state.alerts.purge() == 1
    assert kinds(state) == [("inbox_failed", "b")]


def test_everything_that_grows_is_cleared_out_together(state: State, acme: str) -> None:
    now = datetime.now(UTC)
    for age in (timedelta(days=400), timedelta(0)):
        with time_machine.travel(now - age):
            state.audit.record(call(at=now - age))
            state.inbox.add_many([NewEvent("square", str(age), "t", "a", None, b"")])
            state.inbox.keep([event.id for event in state.inbox.pending("square")], "x")
            state.authorizations.begin("sign_in", "google", session="s", payload={})
            state.people.sign_in("google:1", "ada@example.com", "Ada")
            state.api_tokens.revoke(state.api_tokens.create("x", "ada")[0].id)
            state.sync_requests.finish(state.sync_requests.add(acme, now.date(), now.date(), "ada", "x"), ok=True)
            state.alerts.raise_("inbox_failed", "", "x")
            state.alerts.resolve("inbox_failed", "")
    # The first write of the audit has deleted the old call already.
    state.audit.flush()
    state.audit.record(call(at=now - timedelta(days=400)))
    state.audit.flush()
    kinds = ("calls", "events", "round trips", "sessions", "api tokens", "sync requests", "alerts")
    assert state.purge() == dict.fromkeys(kinds, 1)
    assert state.purge() == dict.fromkeys(kinds, 0)
