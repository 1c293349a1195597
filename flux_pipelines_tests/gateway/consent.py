"""The way to a provider's consent page and back, as a person's browser goes it, over real HTTP to the sandbox."""

from __future__ import annotations

import html
import re

import httpx

from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.runtime import Runtime
from flux_pipelines_tests.gateway.people import Browser, query_of
from flux_sandbox.server import RunningSandbox

KEY = "square:harbor"


def register(runtime: Runtime, gateway: RunningGateway, sandbox: RunningSandbox, *, secret: bool = True) -> str:
    """Register the sandbox's app in Flux (without a client secret: Square then wants PKCE); return that secret."""
    app = httpx.get(f"{sandbox.url}/sandbox/app", timeout=30).json()
    secrets = {"client_id": app["client_id"], **({"client_secret": app["client_secret"]} if secret else {})}
    settings = {"base_url": sandbox.url, "notification_url": f"{gateway.url}/webhooks/square"}
    runtime.state.apps.put("square", settings, secrets)
    return str(app["client_secret"])


def begin(browser: Browser, name: str = "harbor", *, provider: str = "square", **form: str) -> str:
    """Fill in the form; return the address of the consent page, as the link of our page gives it."""
    answer = browser.submit(f"/integrations/{provider}/connect", {"name": name, "tenant": "Harbor Group", **form})
    assert answer.status_code == 200, answer.text
    found = re.search(r'class="button main" href="(http[^"]+)"', answer.text)
    assert found, answer.text
    return html.unescape(found[1])


def agree(url: str, merchant: str = "harbor") -> str:
    """Agree on the consent page; return where the browser is sent."""
    return _consent(url, merchant=merchant)


def deny(url: str) -> str:
    """Refuse on the consent page; return where the browser is sent."""
    return _consent(url, deny="1")


def _consent(url: str, **choice: str) -> str:
    answer = httpx.get(url, params={**query_of(url), **choice}, timeout=30)
    assert answer.is_redirect, answer.text
    return str(answer.headers["location"])


def connect(browser: Browser, name: str = "harbor", merchant: str = "harbor", **form: str) -> httpx.Response:
    """Go the whole way; return the answer to the callback."""
    return browser.get(agree(begin(browser, name, **form), merchant))
