"""Toast's machine sign-in: one JSON Web Token for all of a client's restaurants, the same one until its last minute.

There is no refresh token and no consent page: a client has an id and a secret, and what it may read is in the token's
`scope` claim. Facts: devguide, "Authentication and restaurant access", "Token refresh".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from flux_sandbox.ids import guid, token
from flux_sandbox.toast.errors import forbidden, invalid, unauthorized
from flux_sandbox.toast.ids import group_guid, restaurant_guid
from flux_sandbox.toast.values import FIXED

if TYPE_CHECKING:
    from flux_sandbox.model import Location, Merchant
    from flux_sandbox.world import World

#: What a client may read, unless something was taken away.
SCOPES = (
    "orders:read",
    "guest.pi:read",
    "delivery_info.address:read",
    "menus:read",
    "config:read",
    "restaurants:read",
    "stock:read",
    "labor:read",
    "labor.employees:read",
    "partners:read",
    "enterprise-metrics:read",
)
_LAST_MINUTE = timedelta(seconds=60)
_DAY = 86_400.0


@dataclass(slots=True)
class AccessToken:
    """A token that was given out."""

    value: str
    client_id: str
    scopes: frozenset[str]
    expires_at: datetime


@dataclass(slots=True)
class Client:
    """A merchant's API client: its credentials, what it may read, and the restaurants that it is not connected to."""

    merchant: Merchant
    id: str
    secret: str
    scopes: set[str]
    revoked: bool = False
    signed_in: bool = False
    current: str = ""  # the token that a login gives until its last minute
    disconnected: set[str] = field(default_factory=set)  # GUIDs of restaurants


class Authority:
    """The authentication service: every client of the world's merchants, and every token that it gave out."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clients: dict[str, Client] = {}
        self.tokens: dict[str, AccessToken] = {}
        self._key = token(world.options.seed, "toast signing key").encode()

    def client_of(self, merchant: Merchant) -> Client:
        """Return a merchant's client, made when it is first asked for."""
        id_ = f"toast-{merchant.handle}"
        if id_ not in self.clients:
            secret = token(self.world.options.seed, "toast client", merchant.id)
            self.clients[id_] = Client(merchant, id_, secret, set(SCOPES))
        return self.clients[id_]

    def every_client(self) -> list[Client]:
        """Return the clients of all merchants."""
        return [self.client_of(merchant) for merchant in self.world.merchants_of("toast")]

    def authorised(self) -> set[str]:
        """Return the ids of the merchants whose client has signed in and is still accepted."""
        return {one.merchant.id for one in self.clients.values() if one.signed_in and not one.revoked}

    def restaurants(self, client: Client) -> list[Location]:
        """Return the restaurants that a client may ask about."""
        return [
            location
            for location in client.merchant.locations
            if location.active and restaurant_guid(location) not in client.disconnected
        ]

    # Signing in

    def login(self, body: Any) -> dict[str, Any]:
        """Answer `POST /authentication/v1/authentication/login`.

        Raises:
            ApiError: 400 for a request that is not understood, 401 for credentials that are not accepted.

        """
        if not isinstance(body, dict):
            raise invalid("The request body must be a JSON object")
        for name in ("clientId", "clientSecret", "userAccessType"):
            if not isinstance(body.get(name), str) or not body[name]:
                raise invalid(f"{name} is required")
        if body["userAccessType"] != "TOAST_MACHINE_CLIENT":
            raise invalid("userAccessType must be TOAST_MACHINE_CLIENT")
        client = next((one for one in self.every_client() if one.id == body["clientId"]), None)
        if client is None or not hmac.compare_digest(body["clientSecret"].encode(), client.secret.encode()):
            raise unauthorized("Client authentication failed")
        if client.revoked:
            raise unauthorized("Client credentials have been deleted")
        self.world.request_log.counts["token_refreshes"] += 1
        client.signed_in = True
        found = self._current(client)
        left = int((found.expires_at - self.world.clock()).total_seconds())
        return {
            "@class": ".SuccessfulResponse",
            "token": {
                **FIXED["login"],
                "expiresIn": left,
                "accessToken": found.value,
            },
            "status": "SUCCESS",
        }

    def _current(self, client: Client) -> AccessToken:
        found = self.tokens.get(client.current)
        if found is None or found.expires_at - self.world.clock() <= _LAST_MINUTE:
            found = self._new(client, frozenset(client.scopes), min(self.world.options.token_lifetime, _DAY))
            client.current = found.value
        return found

    def _new(self, client: Client, scopes: frozenset[str], lifetime: float) -> AccessToken:
        now = self.world.clock()
        ends = now + timedelta(seconds=lifetime)
        claims = {
            "https://toasttab.com/client_name": client.merchant.name,
            "https://toasttab.com/access_type": "TOAST_MACHINE_CLIENT",
            "https://toasttab.com/partner_guid": guid("toast", "partner", client.id),
            "https://toasttab.com/type": "CUSTOMER",
            "iss": "https://toast-sandbox.invalid/",
            "sub": f"{client.id}@clients",
            "aud": "https://toast-services-api/",
            "iat": int(now.timestamp()),
            "exp": int(ends.timestamp()),
            "azp": client.id,
            "scope": " ".join(sorted(scopes)),
            "gty": "client-credentials",
            "jti": secrets.token_hex(8),
        }
        value = self._sign({"alg": "RS256", "typ": "JWT", "kid": "sandbox"}, claims)
        self.tokens[value] = AccessToken(value, client.id, scopes, ends)
        self.world.request_log.counts["tokens_issued"] += 1
        return self.tokens[value]

    def _sign(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
        text = ".".join(_encoded(msgspec.json.encode(part)) for part in (header, claims))
        # As long as an RSA signature is. Nobody but the sandbox reads it, and the sandbox looks tokens up.
        return f"{text}.{_encoded(hashlib.shake_256(self._key + text.encode()).digest(256))}"

    # Every other request

    def check(self, authorization: str, scope: str) -> Client:
        """Return the client behind an `Authorization` header.

        Raises:
            ApiError: 401 for a token that is missing, unknown, expired or revoked; 403 without the scope.

        """
        found = self.find(authorization)
        if found is None:
            raise unauthorized("Full authentication is required to access this resource")
        client = self.clients[found.client_id]
        if client.revoked or found.expires_at <= self.world.clock():
            raise unauthorized("The access token is expired or not valid")
        if scope and not self.may(found, scope):
            raise forbidden(f"Access token is missing the scope {scope}")
        return client

    def may(self, found: AccessToken, scope: str) -> bool:
        """Tell whether a token has a scope that its client has not lost since."""
        return scope in found.scopes and scope in self.clients[found.client_id].scopes

    def find(self, authorization: str) -> AccessToken | None:
        """Return the token behind an `Authorization` header, live or not."""
        kind, _, value = authorization.partition(" ")
        return self.tokens.get(value) if kind == "Bearer" else None

    def restaurant(self, client: Client, header: str) -> Location:
        """Return the restaurant that a request is about.

        Raises:
            ApiError: 400 without the header, 403 for a restaurant that the client is not connected to.

        """
        if not header:
            raise invalid("Toast-Restaurant-External-ID header is required")
        for location in self.restaurants(client):
            if restaurant_guid(location) == header:
                return location
        raise forbidden(f"Client does not have access to restaurant {header}")

    # What a test can make happen

    def renewed(self, merchant: Merchant) -> Client:
        """Return a merchant's client with everything granted, whatever was taken away before.

        What an older token says stays as it is: the next login gives another one.
        """
        client = self.client_of(merchant)
        if client.revoked or client.scopes != set(SCOPES):
            client.revoked, client.scopes, client.current = False, set(SCOPES), ""
        return client

    def issue(self, merchant: Merchant, scopes: Iterable[str], lifetime: float | None) -> dict[str, Any]:
        """Give out a token without anybody signing in; a client that was revoked is accepted again."""
        wanted = frozenset(scopes)
        client = self.client_of(merchant) if wanted else self.renewed(merchant)
        client.revoked, client.signed_in = False, True
        found = self._new(client, wanted or frozenset(client.scopes), _DAY if lifetime is None else lifetime)
        if not wanted and lifetime is None:
            client.current = found.value
        return {
            "client_id": client.id,
            "client_secret": client.secret,
            "access_token": found.value,
            "expires_in": int((found.expires_at - self.world.clock()).total_seconds()),
            "group_guid": group_guid(merchant),
        }

    def revoke(self, merchant: Merchant) -> int:
        """Delete a merchant's credentials; return how many live tokens that ended."""
        client = self.client_of(merchant)
        client.revoked, client.current = True, ""
        now = self.world.clock()
        ended = [one for one in self.tokens.values() if one.client_id == client.id and one.expires_at > now]
        for one in ended:
            one.expires_at = now
        return len(ended)

    def remove_scopes(self, merchant: Merchant, scopes: Iterable[str]) -> None:
        """Take permissions away from a merchant's client, in tokens present and future."""
        self.client_of(merchant).scopes -= set(scopes)

    def expire(self, merchant: Merchant | None) -> int:
        """Let the tokens of one merchant, or of all, expire now; return how many."""
        now = self.world.clock()
        ended = 0
        for found in self.tokens.values():
            if merchant in (None, self.clients[found.client_id].merchant) and found.expires_at > now:
                found.expires_at = now
                ended += 1
        return ended


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
