"""Webhook events as Square sends them, put into the inbox, and the sensor that drains it with the runs it asks for."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import time_machine

from flux_pipelines.defs import names
from flux_pipelines.runtime import Runtime
from flux_pipelines.state import NewEvent
from flux_pipelines_tests.defs.conftest import Home
from flux_sandbox.model import Sale


def payment(sale: Sale, event_id: str = "", **changes: Any) -> NewEvent:
    """Return the event that a sale at the counter causes: it names the order, and nothing of it."""
    return event(
        "payment.updated",
        sale.location.merchant_id,
        {"payment": {"id": f"payment-{sale.id}", "order_id": sale.id, "location_id": sale.location.id, **changes}},
        event_id,
    )


def stub(sale: Sale, event_id: str = "") -> NewEvent:
    """Return the event of an order that changed: a stub."""
    created = datetime.fromtimestamp(sale.created / 1000, UTC).isoformat().replace("+00:00", "Z")
    inside = {"order_id": sale.id, "location_id": sale.location.id, "state": sale.state, "created_at": created}
    return event("order.updated", sale.location.merchant_id, {"order_updated": inside}, event_id)


def event(
    kind: str, account: str, inside: dict[str, Any], event_id: str = "", connection: str | None = None
) -> NewEvent:
    """Return any event."""
    identity = event_id or uuid.uuid4().hex
    body = {"merchant_id": account, "type": kind, "event_id": identity, "data": {"type": "any", "object": inside}}
    return NewEvent("square", identity, kind, account, None, json.dumps(body).encode(), connection)


SIGNATURE_KEY = "key"


class Drain:
    """Ticks the real sensor of a home and runs what it asks for in this process.

    Args:
        home: whose.
        port: where its gateway answers, if there is one.

    """

    def __init__(self, home: Home, port: int = 8410) -> None:
        self.home = home
        self.hurried = Runtime(home.runtime.settings, patient=False)  # as a sensor's
        self.inbox = home.runtime.state.inbox
        self.notification_url = f"http://127.0.0.1:{port}/webhooks/square"
        home.runtime.state.apps.put(
            "square",
            {"base_url": home.sandbox.url, "notification_url": self.notification_url},
            {"client_id": "app", "client_secret": "secret", "webhook_signature_key": SIGNATURE_KEY},
        )

    def close(self) -> None:
        """Release what was opened."""
        self.hurried.close()

    def tick(self, name: str = "square_webhooks", cursor: str | None = None) -> dg.SensorExecutionData:
        """Evaluate a sensor once."""
        sensor = self.home.definitions.get_repository_def().get_sensor_def(name)
        data = self.home.tick(sensor, cursor, self.hurried)
        for request in data.dynamic_partitions_requests or ():
            self.home.instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
        return data

    def run(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """Run what a sensor has asked for."""
        return self.home.definitions.resolve_job_def(str(request.job_name)).execute_in_process(
            instance=self.home.instance,
            tags=request.tags,
            asset_selection=request.asset_selection,
            raise_on_error=False,
        )

    def core(self, *days: date) -> None:
        """Bring the core tables up to date, as automation does."""
        for day in days:
            assert self.home.run(names.REFRESH_CORE_JOB, str(day), str(day)).success

    def all(self) -> list[dg.RunRequest]:
        """Drain until nothing is left to do; return the syncs that it took."""
        made: list[dg.RunRequest] = []
        for _ in range(50):
            requests = list(self.tick().run_requests or ())
            syncs = [request for request in requests if names.BATCH_TAG in request.tags]
            for request in requests:
                assert self.run(request).success
            sold = [request for request in syncs if request.tags.get(names.STREAM_TAG, "orders") == "orders"]
            self.core(*sorted({day for request in sold for day in days(request)}))
            made += syncs
            if not requests and not self.inbox.counts()["assigned"]:
                return made
        raise AssertionError(f"it does not end: {self.inbox.counts()}")


def days(request: dg.RunRequest) -> list[date]:
    """Return the business dates that a request covers."""
    first, last = (
        date.fromisoformat(request.tags[tag].rpartition("|")[2]) for tag in (names.RANGE_START, names.RANGE_END)
    )
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def later(**delta: float) -> time_machine.travel:
    """Move the clock on."""
    return time_machine.travel(datetime.now(UTC) + timedelta(**delta))
