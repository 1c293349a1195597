"""Which network addresses are this machine's own."""

from __future__ import annotations

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Tell whether a host, as `urlsplit(url).hostname` gives it, stands for this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
