"""The few pages that the sandbox shows to people: who agrees to what, and who signs in. No script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from starlette.responses import HTMLResponse

if TYPE_CHECKING:
    import jinja2

_TEMPLATES = Path(__file__).with_name("templates")
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


class Choice(NamedTuple):
    """One of the accounts or people that a page lets one choose from."""

    value: str
    title: str
    detail: str
    badge: str = ""


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )


def _page(template: str, status: int = 200, **values: object) -> HTMLResponse:
    text = _environment().get_template(template).render(**values)
    return HTMLResponse(text, status, headers=_HEADERS)


def consent_page(
    provider: str,
    query: Iterable[tuple[str, str]],
    *,
    accounts: Sequence[Choice],
    chosen: str,
    permissions: Sequence[tuple[str, str]],
    goes_to: str,
) -> HTMLResponse:
    """Ask for permissions on an account; the answer is the same request with `merchant` or with `deny=1`.

    Args:
        provider: whose page it is.
        query: the request's parameters, which are sent again.
        accounts: whose permission can be given.
        chosen: the account that is selected at first.
        permissions: each with what it means.
        goes_to: the host that the answer is sent to.

    """
    return _page(
        "consent.html",
        provider=provider,
        query=list(query),
        accounts=accounts,
        chosen=chosen,
        permissions=permissions,
        goes_to=goes_to,
    )


def people_page(
    provider: str, query: Iterable[tuple[str, str]], people: Sequence[Choice], goes_to: str
) -> HTMLResponse:
    """Ask who signs in; the answer is the same request with `person` or with `deny=1`."""
    return _page("people.html", provider=provider, query=list(query), people=people, goes_to=goes_to)


def error_page(provider: str, status: int, title: str, details: Mapping[str, str]) -> HTMLResponse:
    """Say why no page can be shown."""
    return _page("error.html", status, provider=provider, title=title, details=dict(details))
