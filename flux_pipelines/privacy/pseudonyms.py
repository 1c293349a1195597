"""Pseudonyms: keyed hashes that stand for texts. Equal texts get equal ones, and nobody can read them back.

Without the key they cannot be guessed at either, which a plain hash of a phone number could be within seconds.
"""

from __future__ import annotations

import binascii
import hashlib
import re

from flux_pipelines.domain.errors import ConfigurationError

#: How a pseudonym looks: 128 bits of HMAC-SHA256 in URL-safe base64.
PSEUDONYM = re.compile(r"hmac:[A-Za-z0-9_-]{22}")

_KEY_BYTES = 32
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_INNER, _OUTER = bytes(n ^ 0x36 for n in range(256)), bytes(n ^ 0x5C for n in range(256))
#: A letter, then letters, digits and a few signs: neither an e-mail address nor a phone number, nor a pseudonym.
_IDENTIFIER = re.compile(rb"[A-Za-z][A-Za-z0-9_.-]*")
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
        # HMAC (RFC 2104) by hand: what its key does to both hashes is the same each time and is done once.
        block = key.ljust(hashlib.sha256().block_size, b"\0")
        self._inner = hashlib.sha256(block.translate(_INNER))
        self._outer = hashlib.sha256(block.translate(_OUTER))

    def __repr__(self) -> str:
        return "Pseudonyms()"

    def of(self, text: str) -> str:
        """Return the pseudonym of a text, which is itself when it is a pseudonym already or has nothing but blanks."""
        plain = normalised(text)
        if not plain or (plain.startswith("hmac:") and PSEUDONYM.fullmatch(plain)):
            return plain
        return self._of(plain.encode("utf-8", "surrogatepass")).decode()

    def of_bytes(self, text: bytes) -> bytes:
        """Return the pseudonym of a text in UTF-8; of bytes that are none, it is that of the text they are kept in."""
        if _IDENTIFIER.fullmatch(text):  # nearly all: its own normal form, and no pseudonym
            return self._of(text)
        return self.of(text.decode("utf-8", "surrogateescape")).encode()

    def _of(self, plain: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(plain)
        outer.update(inner.digest())
        return b"hmac:" + binascii.b2a_base64(outer.digest()[:16], newline=False)[:22].translate(_URL_SAFE)


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
