"""OAuth as it is alike everywhere: the page on which a person agrees, codes that work once, tokens that end, and what tests do to them.

What differs is the providers': their endpoints, the forms of requests and answers, and what becomes of a refresh token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from starlette.responses import RedirectResponse, Response

from flux_sandbox.options import CLIENT_ID
from flux_sandbox.pages import Choice, consent_page

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams

    from flux_sandbox.model import Merchant
    from flux_sandbox.world import World


def is_address(url: str) -> bool:
    """Tell whether something could be sent there."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return good and not parts.fragment and " " not in url


def with_query(address: str, values: Mapping[str, str]) -> str:
    """Return an address with more parameters."""
    return f"{address}{'&' if urlsplit(address).query else '?'}{urlencode(values)}"


def proves(challenge: str, verifier: str, method: str = "S256") -> bool:
    """Tell whether a PKCE verifier is the one of a challenge; without a challenge there must be none."""
    if not challenge:
        return not verifier
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    made = verifier if method == "plain" else digest
    return bool(verifier) and hmac.compare_digest(made.encode(), challenge.rstrip("=").encode())


@dataclass(slots=True)
class Grant:
    """A merchant's authorisation of the app; revoking it ends every token that came from it."""

    merchant_id: str
    scopes: frozenset[str]
    revoked: bool = False


@dataclass(slots=True)
class AccessToken:
    """A bearer token."""

    grant: Grant
    expires_at: datetime


@dataclass(slots=True)
class RefreshToken:
    """A refresh token; without an end it is good for ever. `replacements` are what it was replaced by."""

    grant: Grant
    expires_at: datetime | None = None
    used_at: datetime | None = None
    replacements: list[RefreshToken] = field(default_factory=list)


@dataclass(slots=True)
class Code:
    """An authorization code."""

    grant: Grant
    expires_at: datetime
    redirect_uri: str
    challenge: str
    used: bool = False


class Consent(NamedTuple):
    """What a person is asked to agree to, and where the answer goes."""

    redirect: str
    scopes: frozenset[str]
    state: Mapping[str, str]


class Authority(ABC):
    """The authorisation server of a provider: what has been granted, and every code and token that it gave out."""

    title = ""  # the provider's name, on the page
    provider = ""
    #: Every permission, and what the person who is asked for it reads.
    scopes: Mapping[str, str] = {}

    def __init__(self, world: World) -> None:
        self.world = world
        self.codes: dict[str, Code] = {}
        self.access: dict[str, AccessToken] = {}
        self.refresh: dict[str, RefreshToken] = {}
        self.grants: dict[str, list[Grant]] = {}
        #: Called with the merchant's id and who revoked: MERCHANT or APPLICATION.
        self.on_revoked: Callable[[str, str], None] = lambda merchant_id, revoker: None  # noqa: ARG005

    # What a provider does in its own way

    @abstractmethod
    def refusal(self, parameter: str, detail: str) -> Exception:
        """Return the error of a request that no page can be shown for, as the provider answers it."""

    @abstractmethod
    def code(self) -> str:
        """Return a new authorization code."""

    def detail(self, merchant: Merchant) -> str:
        """Return what the page says of an account beside its name."""
        return f"{len(merchant.locations)} location{'' if len(merchant.locations) == 1 else 's'} · {merchant.currency}"

    def signed(self, merchant: Merchant, values: dict[str, str]) -> dict[str, str]:  # noqa: ARG002
        """Return the parameters of a callback, given what it says."""
        return values

    @abstractmethod
    def new_tokens(self, grant: Grant, lifetime: float | None = None) -> dict[str, Any]:
        """Give out tokens, as the token endpoint answers them."""

    # The page

    def authorised(self) -> set[str]:
        """Return the ids of the merchants that have a live authorisation."""
        return {merchant_id for merchant_id, grants in self.grants.items() if grants}

    def granted(self, merchant_id: str) -> frozenset[str]:
        """Return every scope that a merchant has granted and not taken back."""
        return frozenset().union(*(grant.scopes for grant in self.grants.get(merchant_id, ())))

    def choose(self, name: str) -> Merchant:
        """Return the merchant who is asked: the one named, else the first that has not authorised yet."""
        merchants = self.world.merchants_of(self.provider)
        for merchant in merchants:
            if name and name in (merchant.id, merchant.handle, merchant.name):
                return merchant
        done = self.authorised()
        return next((one for one in merchants if one.id not in done), merchants[0])

    def authorize(self, query: QueryParams, named: Merchant | None = None) -> Response:
        """Show the page; with `merchant` or `deny`, which its buttons add, answer for the person.

        Args:
            query: of the request.
            named: the only account that can be meant.

        Raises:
            Exception: `refusal`: the request is not one that a page could be shown for.

        """
        consent = self._consent(query)
        if "merchant" in query or query.get("deny") == "1":
            return RedirectResponse(self._answer(consent, query, named or self.choose(query.get("merchant", ""))), 302)
        done = self.authorised()
        accounts = [
            Choice(one.id, one.name, self.detail(one), "authorised before" if one.id in done else "")
            for one in ([named] if named else self.world.merchants_of(self.provider))
        ]
        return consent_page(
            self.title,
            query.multi_items(),
            accounts=accounts,
            chosen=(named or self.choose("")).id,
            permissions=[(scope, self.scopes[scope]) for scope in sorted(consent.scopes)],
            goes_to=urlsplit(consent.redirect).netloc,
        )

    def _consent(self, query: Mapping[str, str]) -> Consent:
        if query.get("client_id") != CLIENT_ID:
            raise self.refusal("client_id", "No application is known by that client_id.")
        redirect = query.get("redirect_uri") or ""
        if not is_address(redirect):
            raise self.refusal("redirect_uri", "The redirect_uri is not the one registered.")
        scopes = frozenset(query.get("scope", "").replace(",", " ").split())
        if not scopes or not scopes <= self.scopes.keys():
            unknown = ", ".join(sorted(scopes - self.scopes.keys())) or "none given"
            raise self.refusal("scope", f"Invalid scope: {unknown}.")
        return Consent(redirect, scopes, {"state": query["state"]} if query.get("state") else {})

    def _answer(self, consent: Consent, query: Mapping[str, str], merchant: Merchant) -> str:
        if query.get("deny") == "1":
            values = {"error": "access_denied", "error_description": "user_denied"}
        else:
            code = self.code()
            ends = self.world.clock() + timedelta(seconds=self.world.options.code_lifetime)
            grant = Grant(merchant.id, consent.scopes)
            self.codes[code] = Code(grant, ends, consent.redirect, query.get("code_challenge", ""))
            values = {"code": code}
        return with_query(consent.redirect, self.signed(merchant, {**values, **consent.state}))

    # Tokens

    def live_code(self, text: str) -> Code | None:
        """Return a code that can be redeemed: whoever redeems it marks it as used."""
        found = self.codes.get(text)
        return None if found is None or found.used or found.expires_at <= self.world.clock() else found

    def keep(self, text: str, grant: Grant, lifetime: float) -> datetime:
        """Remember an access token that is given out; return when it ends."""
        ends = self.world.clock() + timedelta(seconds=lifetime)
        self.access[text] = AccessToken(grant, ends)
        self.world.request_log.counts["tokens_issued"] += 1
        live = self.grants.setdefault(grant.merchant_id, [])
        if not any(grant is one for one in live):
            live.append(grant)
        return ends

    # What a test can make happen

    def issue(self, merchant: Merchant, scopes: Iterable[str], lifetime: float | None) -> dict[str, Any]:
        """Give out tokens without anybody authorising, as a developer console does."""
        return self.new_tokens(Grant(merchant.id, frozenset(scopes) or frozenset(self.scopes)), lifetime)

    def revoke(self, merchant: Merchant, revoker: str = "MERCHANT") -> int:
        """Revoke everything a merchant granted, and say so; returns how many access tokens that ended."""
        live = self.grants.pop(merchant.id, [])
        for grant in live:
            grant.revoked = True
        if live:
            self.on_revoked(merchant.id, revoker)
        return sum(any(token.grant is grant for grant in live) for token in self.access.values())

    def remove_scopes(self, merchant: Merchant, scopes: Iterable[str]) -> None:
        """Take permissions away from a merchant's tokens, present and future."""
        for grant in self.grants.get(merchant.id, ()):
            grant.scopes -= frozenset(scopes)

    def expire(self, merchant: Merchant | None) -> int:
        """Let all access tokens (of one merchant, or of all) expire now; returns how many."""
        now, ended = self.world.clock(), 0
        for token in self.access.values():
            if (merchant is None or merchant.id == token.grant.merchant_id) and token.expires_at > now:
                token.expires_at = now
                ended += 1
        return ended
