"""What tests of Toast's sandbox share: a small world over real HTTP, and a client that signs in and pages as documented."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from typing import Any

import httpx

from flux_pipelines_tests.sandbox.conftest import END_DAY, Clock
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox
from flux_sandbox.toast.ids import restaurant_guid

HANDLE = "harbor-kitchen"
LOGIN = "/toast/authentication/v1/authentication/login"
BULK = "/orders/v2/ordersBulk"
#: High enough that no test meets a limit it does not ask for.
UNLIMITED = 10**9


def exact(answer: httpx.Response) -> Any:
    """Read JSON with money as it is printed."""
    return json.loads(answer.content, parse_float=Decimal)


class Toast:
    """A client of the sandbox's Toast, for one restaurant at a time."""

    def __init__(self, sandbox: RunningSandbox, **token: Any) -> None:
        self.sandbox = sandbox
        self.world = sandbox.world
        self.http = httpx.Client(base_url=sandbox.url, timeout=30)
        issued = self.http.post("/sandbox/tokens", json={"provider": "toast", "merchant": HANDLE, **token}).json()
        self.secrets = {"clientId": issued["client_id"], "clientSecret": issued["client_secret"]}
        self.http.headers["Authorization"] = f"Bearer {issued['access_token']}"
        self.merchant = self.world.merchant(HANDLE)
        self.restaurants = {restaurant_guid(location): location for location in self.merchant.locations}
        self.here = next(iter(self.restaurants))

    def get(self, path: str, here: str | None = None, **query: str) -> httpx.Response:
        """Ask about a restaurant: by default the first."""
        headers = {"Toast-Restaurant-External-ID": here or self.here}
        return self.http.get(f"/toast{path}", params=query, headers=headers)

    def login(self, **body: Any) -> httpx.Response:
        """Sign in."""
        return self.http.post(LOGIN, json={**self.secrets, "userAccessType": "TOAST_MACHINE_CLIENT", **body})

    def control(self, what: str, **body: Any) -> Any:
        """Make something happen."""
        answer = self.http.post(f"/sandbox/{what}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def orders(self, here: str | None = None, **query: str) -> list[Any]:
        """Follow the Link headers to the end."""
        found: list[Any] = []
        answer = self.get(BULK, here, **query)
        while True:
            assert answer.status_code == 200, answer.text
            found += exact(answer)
            following = answer.links.get("next")
            if following is None:
                return found
            headers = {"Toast-Restaurant-External-ID": here or self.here}
            answer = self.http.get(following["url"], headers=headers)

    def day(self, day: date, here: str | None = None) -> list[Any]:
        """Return the orders of a business date."""
        return self.orders(here, businessDate=f"{day:%Y%m%d}")


@contextmanager
def toast_sandbox(clock: Clock | None = None, **options: Any) -> Iterator[RunningSandbox]:
    """Run a sandbox whose clock stands still."""
    settings: dict[str, Any] = {"end_day": END_DAY, "history_days": 8, "rate_limit": UNLIMITED, **options}
    with RunningSandbox(SandboxOptions(clock=clock or Clock(), **settings)) as running:
        yield running


def message_of(answer: httpx.Response, status: int) -> str:
    """Return the message of an ErrorMessage, whose form is checked."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {
        *("status", "code", "message", "messageKey", "fieldName", "link", "requestId", "developerMessage", "errors"),
        "canRetry",
    }
    assert body["status"] == status
    assert body["requestId"]
    return str(body["message"])
