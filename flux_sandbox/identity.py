"""The people of the sandbox, and what its identity providers share: codes that work once, and PKCE.

Google and GitHub are played under `/identity/google` and `/identity/github`, with what a client must not get wrong: an
address that is not confirmed, a primary address that is another one, an account of a stranger.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request

from flux_sandbox.oauth import proves, with_query
from flux_sandbox.pages import Choice

_CODE_SECONDS = 600.0


class Address(NamedTuple):
    """An e-mail address of a person."""

    email: str
    primary: bool
    verified: bool


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can sign in.

    Args:
        login: the name at GitHub.
        number: GitHub's id; Google's subject is made of it.
        name: as shown.
        addresses: the first is Google's.
        domain: of the Workspace that the Google account belongs to.
        note: what is particular about them, on the page.

    """

    login: str
    number: int
    name: str
    addresses: tuple[Address, ...]
    domain: str = ""
    note: str = ""

    @property
    def subject(self) -> str:
        """Google's `sub`: a number of 21 digits."""
        return f"1{self.number:020d}"

    @property
    def email(self) -> str:
        """The address of the Google account."""
        return self.addresses[0].email


PEOPLE = (
    Person("ada", 5_810_001, "Ada Lovelace", (Address("ada@example.com", True, True),), "example.com"),
    Person(
        "grace",
        5_810_002,
        "Grace Hopper",
        (Address("grace@example.com", True, True), Address("amazing.grace@example.net", False, False)),
        "example.com",
    ),
    Person(
        "unverified", 5_810_003, "Una Verified", (Address("unverified@example.com", True, False),), note="not confirmed"
    ),
    Person(
        "henry",
        5_810_004,
        "Henry Twoface",
        # At GitHub the second one is no proof of who he is: only the primary one is.
        (Address("henry@example.net", True, True), Address("henry@example.com", False, True)),
        note="second address",
    ),
    Person("mallory", 5_810_005, "Mallory Stranger", (Address("mallory@example.net", True, True),), note="stranger"),
)


def person(name: str) -> Person | None:
    """Return the person of that login or address."""
    return next((p for p in PEOPLE if name in (p.login, p.email)), None)


def choices(hint: str = "") -> list[Choice]:
    """Return everybody as a page shows them; the one hinted at comes first."""
    ordered = sorted(PEOPLE, key=lambda p: hint not in (p.login, p.email))
    return [Choice(p.email, p.name, p.email, p.note) for p in ordered]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asked for when its person agreed."""

    person: Person
    redirect_uri: str
    scopes: tuple[str, ...]
    challenge: str = ""
    method: str = ""
    nonce: str = ""

    def proves(self, verifier: str) -> bool:
        """Tell whether a PKCE verifier is the one of the challenge."""
        return proves(self.challenge, verifier, self.method)


class Codes:
    """Authorization codes: each works once, for ten minutes."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._live: dict[str, tuple[Asked, datetime]] = {}

    def issue(self, asked: Asked, prefix: str = "") -> str:
        """Return a new code."""
        now = self._clock()
        self._live = {code: kept for code, kept in self._live.items() if kept[1] > now}
        code = prefix + secrets.token_urlsafe(24)
        self._live[code] = (asked, now + timedelta(seconds=_CODE_SECONDS))
        return code

    def redeem(self, code: str) -> Asked | None:
        """Return what a code stands for, the first time it is presented; even if the rest of the request is wrong."""
        asked, ends = self._live.pop(code, (None, self._clock()))
        return asked if ends > self._clock() else None


def back_to(redirect_uri: str, query: Mapping[str, str], **values: str) -> str:
    """Return the address that carries an answer, with the request's `state`."""
    state = {"state": query["state"]} if query.get("state") else {}
    return with_query(redirect_uri, {**values, **state})


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form, or of a JSON object of texts; of anything else, none."""
    raw = await request.body()
    if request.headers.get("content-type", "").partition(";")[0] == "application/json":
        try:
            return msgspec.json.decode(raw, type=dict[str, str])
        except (msgspec.DecodeError, msgspec.ValidationError):
            return {}
    return dict(parse_qsl(raw.decode("utf-8", "replace")))
