"""Pseudonyms: keyed hashes that stand for texts. Equal texts get equal ones, and nobody can read them back.

Without the key they cannot be guessed at either, which a plain hash of a phone number could be within seconds.
"""

from __future__ import annotations

import binascii
import hmac
import re

from flux_pipelines.domain.errors import ConfigurationError

#: How a pseudonym looks: 128 bits of HMAC-SHA256 in URL-safe base64.
PSEUDONYM = re.compile(r"hmac:[A-Za-z0-9_-]{22}")

_KEY_BYTES = 32
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_PHONE = re.compile(r"\+?[\d\s().\-/]+")
#: The shortest international number has seven digits; fewer are a house number or a code.
_FEWEST_DIGITS = 7


class Pseudonyms:
    """Makes pseudonyms with one key.

    Args:
        key: 32 secret bytes; other keys give other pseudonyms.

    Raises:
        ConfigurationError: the key is of another length.

    """

    def __init__(self, key: bytes) -> None:
        if len(key) != _KEY_BYTES:
            raise ConfigurationError(f"the key of pseudonyms must have {_KEY_BYTES} bytes")
        self._key = key

    def __repr__(self) -> str:
        return "Pseudonyms()"

    def of(self, text: str) -> str:
        """Return the pseudonym of a text, which is itself when it is a pseudonym already or has nothing but blanks."""
        plain = normalised(text)
        if not plain or (plain.startswith("hmac:") and PSEUDONYM.fullmatch(plain)):
            return plain
        digest = hmac.digest(self._key, plain.encode("utf-8", "surrogatepass"), "sha256")
        return "hmac:" + binascii.b2a_base64(digest[:16], newline=False).translate(_URL_SAFE).decode()[:22]


def normalised(text: str) -> str:
    """Return the one form of a text that is written in several: e-mails in lower case, of phone numbers the digits."""
    plain = text.strip()
    if "@" in plain:
        return plain.lower()
    if _PHONE.fullmatch(plain):
        digits = "".join(c for c in plain if c.isdecimal())
        if len(digits) >= _FEWEST_DIGITS:
            return digits
    return plain
