"""Random tokens that others hold, and what is kept of them: a hash, from which they cannot be had back."""

from __future__ import annotations

import hashlib
import hmac
import secrets


def new_token() -> str:
    """Return 256 random bits in 43 characters that are safe in URLs, cookies and headers."""
    return secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """Return what is stored of a random token. It has entropy enough that a slow hash would add nothing."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def same(one: str, other: str) -> bool:
    """Compare in a time that does not depend on where they differ."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def derived(token: str, use: str) -> str:
    """Return another token, for one use, that only somebody who has the first can know."""
    return hmac.new(token.encode("utf-8", "replace"), f"flux/{use}".encode(), hashlib.sha256).hexdigest()
