"""Browsers without a screen: cookies, and the headers that browsers send by themselves."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from flux_pipelines.gateway.server import RunningGateway
from flux_pipelines.gateway.sessions import cookie_name


class Browser(httpx.Client):
    """Follows no redirect by itself. Posts carry `Origin` and `Sec-Fetch-Site` as those of our own pages do."""

    def __init__(self, gateway: RunningGateway, **more: Any) -> None:
        super().__init__(base_url=gateway.url, trust_env=False, timeout=30.0, **more)
        self.gateway = gateway

    @property
    def session(self) -> str:
        """The session token that this browser holds."""
        return self.cookies.get(cookie_name(self.gateway.options), "")

    def sign_in_as(self, subject: str, email: str, name: str) -> None:
        """Be signed in, without the way through an identity provider (its own tests walk it)."""
        token = self.gateway.app.state.runtime.state.people.sign_in(subject, email, name)
        self.cookies.set(cookie_name(self.gateway.options), token, domain="127.0.0.1", path="/")

    def csrf(self) -> str:
        """The token of this session's forms, read from a page as a person's browser has it."""
        page = self.get("/nothing-here").text
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', page)
        assert found, "the page has no form"
        return found[1]

    def submit(self, path: str, form: dict[str, str] | None = None, **headers: str) -> httpx.Response:
        """Post a form of one of our pages."""
        given = {"csrf": self.csrf(), **(form or {})}
        sent = {"origin": self.gateway.options.public_url, "sec-fetch-site": "same-origin"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.post(path, data=given, headers=sent)


def query_of(url: str) -> dict[str, str]:
    """The query of a URL, each name once."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query, keep_blank_values=True).items()}
