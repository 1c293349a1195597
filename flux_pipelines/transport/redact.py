"""Secrets out of everything that people read: messages, URLs, headers, logs.

Two nets: values known to be secret (every token that a client sends is remembered) and the places and shapes that secrets
come in, for those that were never seen before.
"""

from __future__ import annotations

import logging
import re
import threading
import traceback
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlsplit

MASK = "[redacted]"

_NAMES = (
    r"access[_-]?token|refresh[_-]?token|id[_-]?token|client[_-]?secret|code[_-]?verifier|api[_-]?key|secret[_-]?key|"
    r"x-amz-signature|x-amz-security-token|signature|password|passwd|secret|token|authorization|proxy-authorization|"
    r"set-cookie|cookie"
)
_SCHEMES = re.compile(r"\b(Bearer|Basic|Client)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
# name=value, "name": "value", 'name': b'value', name: value
_PAIRS = re.compile(
    rf"""(?P<name>["']?\b(?:[A-Za-z0-9_-]*[_-])?(?:{_NAMES})\b["']?\s*[:=]\s*)(?P<value>b?"[^"]*"|b?'[^']*'|[^\s,;&"'}}\])]+)""",
    re.IGNORECASE,
)
_SHAPES = re.compile(
    r"\b(?:EAAA[A-Za-z0-9_-]{20,}|sq0[a-z]{3}-[A-Za-z0-9_-]{16,}|shp(?:at|ca|pa|ss|ua)_[A-Za-z0-9]{16,}|"
    r"(?:sk|rk|whsec)_[A-Za-z0-9_]{16,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|"
    r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*)"
)
_USERINFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^/@\s]+:[^/@\s]*@", re.IGNORECASE)
_SECRET_HEADERS = re.compile(r"authorization|cookie|token|secret|api-?key|signature", re.IGNORECASE)

_SHORTEST = 6  # shorter values would mask ordinary words
_LONGEST_WORD = 16  # longer values of letters alone are masked within words too
_MOST = 1024

_known: dict[str, None] = {}
_mutex = threading.Lock()


def remember(secret: str) -> None:
    """Mask this value wherever it turns up from now on. Of more than a thousand, the oldest are forgotten."""
    if len(secret) < _SHORTEST or secret in _known:
        return
    with _mutex:
        _known[secret] = None
        while len(_known) > _MOST:
            del _known[next(iter(_known))]


def remember_headers(headers: Mapping[str, str]) -> None:
    """Remember the values of those headers that carry secrets."""
    for name, value in headers.items():
        if _SECRET_HEADERS.search(name):
            remember(value)
            remember(value.rpartition(" ")[2])  # without the scheme: `Bearer`, `Basic`, `Client`


def redact(text: str) -> str:
    """Return the text with every secret masked."""
    for secret in list(_known):
        if secret in text:
            text = _mask_known(text, secret)
    text = _SCHEMES.sub(rf"\1 {MASK}", text)
    text = _PAIRS.sub(_mask_pair, text)
    text = _SHAPES.sub(MASK, text)
    return _USERINFO.sub(rf"\g<scheme>{MASK}@", text)


def _mask_known(text: str, secret: str) -> str:
    if secret.isalpha() and len(secret) < _LONGEST_WORD:
        # Somebody's password may be the word `secret`: to mask it in `client_secret=` would hide the name by which the value
        # behind it is known to be one.
        return re.sub(rf"""(?<!\w){secret}(?!\w|["']?\s*[:=])""", MASK, text)
    return text.replace(secret, MASK)


def redact_url(url: str) -> str:
    """Return the URL without user name, password, fragment and values of the query; its names stay."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    names = "&".join(f"{quote(name)}=*" for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    base = f"{parts.scheme}://{host}{parts.path}" if parts.scheme else f"{host}{parts.path}"
    return redact(base) + (f"?{names}" if names else "")


class RedactingFilter(logging.Filter):
    """A filter for loggers and handlers of `logging` that masks secrets in messages and tracebacks."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the record in place; it is always kept."""
        record.msg, record.args = redact(record.getMessage()), ()
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = redact("".join(traceback.format_exception(*record.exc_info)).rstrip())
            # The formatter would format it anew, unmasked, for any other handler.
            record.exc_info = None
        return True


class _UrlFilter(logging.Filter):
    """httpx logs every URL with the values of its query."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                redact_url(str(value)) if type(value).__name__ == "URL" else value for value in record.args
            )
        return True


def guard_http_logs() -> None:
    """Keep query values and secrets out of what the HTTP library logs."""
    logger = logging.getLogger("httpx")
    if not any(isinstance(present, _UrlFilter) for present in logger.filters):
        logger.addFilter(_UrlFilter())
        logger.addFilter(RedactingFilter())


def _mask_pair(match: re.Match[str]) -> str:
    value = match["value"]
    if value.lstrip("b\"'").startswith(MASK[:-1]):  # an unquoted value is matched without the closing bracket
        return match[0]
    # `Authorization: Bearer [redacted]` is masked already; the scheme is worth keeping.
    if value.lower() in {"bearer", "basic", "client"}:
        return match[0]
    quoted = re.match(r"""b?["']""", value)
    return match["name"] + (f"{quoted[0]}{MASK}{quoted[0][-1]}" if quoted else MASK)
