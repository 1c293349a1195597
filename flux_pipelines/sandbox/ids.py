"""Identifiers that look like the real ones and are the same for the same seed."""

from __future__ import annotations

import base64
import hashlib


def code(*parts: object, length: int = 24) -> str:
    """Return upper-case letters and digits, as catalogue objects, locations and merchants have."""
    digest = hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=20).digest()
    return base64.b32encode(digest).decode()[:length]


def token(*parts: object) -> str:
    """Return 27 letters and digits, as orders have."""
    digest = hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=21).digest()
    return base64.urlsafe_b64encode(digest).decode()[:27].replace("-", "x").replace("_", "Y")
