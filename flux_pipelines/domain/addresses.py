"""Addresses of servers: which are this machine's own, and how browsers write them."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from flux_pipelines.domain.errors import ConfigurationError


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
