"""Identifiers that look like the real ones and are the same for the same seed."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flux_sandbox.model import IdStyle


def code(*parts: object, length: int = 24) -> str:
    """Return upper-case letters and digits, as catalog objects, locations and merchants have."""
    digest = hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=20).digest()
    return base64.b32encode(digest).decode()[:length]


def token(*parts: object) -> str:
    """Return 27 letters and digits, as orders have."""
    digest = hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=21).digest()
    return base64.urlsafe_b64encode(digest).decode()[:27].replace("-", "x").replace("_", "Y")


def stem(order_id: str) -> str:
    """Return what the ids of an order's parts begin with, where the order's own id is a token."""
    digest = hashlib.blake2b(order_id.encode(), digest_size=12).digest()
    return base64.urlsafe_b64encode(digest).decode().replace("-", "m").replace("_", "W")


def guid(*parts: object) -> str:
    """Return a version 4 UUID's text."""
    digest = hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=16).digest()
    text = digest.hex()
    variant = "89ab"[digest[8] >> 4 & 3]
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


def number(*parts: object) -> str:
    """Return thirteen digits, as a 64-bit id has."""
    digest = hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=8).digest()
    return str(4_000_000_000_000 + int.from_bytes(digest) % 5_000_000_000_000)


def made(style: IdStyle, *parts: object) -> str:
    """Return an id of a style."""
    return _MAKERS[style](*parts)


_MAKERS = {"token": token, "guid": guid, "number": number}
