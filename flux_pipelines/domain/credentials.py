"""Where a bearer token comes from: what the transport asks of whoever keeps tokens."""

from __future__ import annotations

from typing import Protocol


class Credentials(Protocol):
    """Where a client gets its bearer token; refreshing is behind it."""

    def token(self) -> str:
        """Return a token that is valid now, refreshing it first when it is about to expire."""

    def renew(self, rejected: str) -> str:
        """Return a token other than the rejected one, refreshing under the connection's lease.

        Raises:
            ReauthorizationNeededError: the provider no longer accepts the connection.

        """
