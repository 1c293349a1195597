"""Addresses: which are this machine's own and how browsers write them, whom one counts for, and which e-mail domains are the same."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from string import ascii_lowercase, ascii_uppercase
from urllib.parse import urlsplit

import idna

from flux_pipelines.domain.errors import ConfigurationError

_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
_SUBSCRIBER_BITS = 64


def is_loopback(host: str) -> bool:
    """Tell whether a host, as `urlsplit(url).hostname` gives it, stands for this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def origin_of(text: str, setting: str) -> str:
    """Return the address of a server as browsers write it in `Origin`: scheme and host, and a port that is not the usual.

    Args:
        text: what the setting says.
        setting: its name, for the error.

    Raises:
        ConfigurationError: that is no such address, or more than one.

    """
    parts = urlsplit(text.strip())
    try:
        port = parts.port
    except ValueError:
        port = -1
    wrong = parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc or port == -1
    if parts.scheme not in ("http", "https") or not parts.hostname or wrong:
        raise ConfigurationError(
            f"{setting} is not the address of a server",
            next_step="Write scheme, host and port only, such as https://flux.example.com.",
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    usual = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, usual) else "")


def ip_of(host: str) -> IPv4Address | IPv6Address | None:
    """Return a network address, the IPv4 one where it is written as IPv6 (`::ffff:192.0.2.1`); None: it is none."""
    try:
        found = ip_address(host)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def subscriber_of(host: str) -> str:
    """Return whom an address counts for: itself, of IPv6 its /64, which is the least that one subscriber is given."""
    found = ip_of(host)
    if isinstance(found, IPv6Address):
        return str(ip_network((int(found), _SUBSCRIBER_BITS), strict=False))
    return host if found is None else str(found)


def email_of(text: str) -> str:
    """Return an e-mail address in the one form in which two that are the same are equal.

    A-Z are a-z, and the domain is in ASCII as the name system has it (IDNA 2008: `straße.example` is
    `xn--strae-oqa.example`, and never `strasse.example`). Nothing else is made alike. The local part may be empty.

    Raises:
        ValueError: it is not an address, or its domain not one that can be registered.

    """
    local, at, domain = text.translate(_LOWER).rpartition("@")
    if not at or not domain or "@" in local or any(c.isspace() for c in text):
        raise ValueError("not an e-mail address")
    return f"{local}@{domain_of(domain)}"


def domain_of(text: str) -> str:
    """Return a domain in lower-case ASCII, as `email_of` does.

    Raises:
        ValueError: it cannot be registered.

    """
    lower = text.translate(_LOWER)
    # `idna.IDNAError` is a ValueError. Its mapping of look-alikes (UTS 46) is not asked for: each would make two domains one.
    return lower if lower.isascii() else idna.encode(lower).decode()
