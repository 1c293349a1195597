"""An OpenID provider whose answers a test decides: what no real one would say. The good way is walked with real ones."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import parse_qs

from joserfc import jwt
from joserfc.jwk import RSAKey
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

CLIENT_ID = "flux-client"
CLIENT_SECRET = "the-apps-own-secret"


class Issuer:
    """Serves discovery, keys and tokens; `claims`, `header` and `key` change what the next ID token is."""

    def __init__(self, server: HTTPServer) -> None:
        self.url = server.url_for("").rstrip("/")
        self.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
        self.published: list[dict[str, Any]] = [self.key.as_dict(private=False)]
        self.discovery: dict[str, Any] = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/auth",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
        }
        self.token: str | None = None
        self.answer: tuple[int, str] | None = None
        self.asked: list[dict[str, str]] = []
        self.keys_asked = 0
        server.expect_request("/.well-known/openid-configuration").respond_with_handler(
            lambda _: Response(json.dumps(self.discovery), content_type="application/json")
        )
        server.expect_request("/keys").respond_with_handler(self._keys)
        server.expect_request("/token", method="POST").respond_with_handler(self._token)

    def claims(self, expected: str, /, **changes: Any) -> dict[str, Any]:
        """Good claims for the expected nonce, with changes; None leaves one out."""
        good = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "sub": "1234567890",
            "iat": int(time.time()),
            "exp": int(time.time()) + 3600,
            "nonce": expected,
            "email": "ada@example.com",
            "email_verified": True,
            "name": "Ada",
        }
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    def sign(self, claims: dict[str, Any], *, key: Any = None, **header: Any) -> str:
        """Sign claims; with the issuer's key unless another is given."""
        signer = key or self.key
        values = {"alg": "RS256", "kid": "one", **header}
        values = {name: value for name, value in values.items() if value is not None}
        return jwt.encode(values, claims, signer, algorithms=["RS256", "RS384"])

    def _keys(self, _: Request) -> Response:
        self.keys_asked += 1
        return Response(json.dumps({"keys": self.published}), content_type="application/json")

    def _token(self, request: Request) -> Response:
        self.asked.append({name: values[0] for name, values in parse_qs(request.get_data(as_text=True)).items()})
        if self.answer is not None:
            return Response(self.answer[1], status=self.answer[0], content_type="application/json")
        body = {"access_token": "unused", "token_type": "Bearer", "id_token": self.token}
        return Response(json.dumps(body), content_type="application/json")
