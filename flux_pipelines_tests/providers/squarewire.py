"""Everything a Square client needs for a test over a real wire: transport, credentials, a context."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import ReauthorizationNeededError
from flux_pipelines.providers.base import SourceContext
from flux_pipelines.providers.square import PROVIDER
from flux_pipelines.providers.square.client import SquareClient
from flux_pipelines.transport import CallRecord, RetryPolicy, SqliteLimitStore, Transport


class Calls(list[CallRecord]):
    """An audit that keeps what it is told."""

    def record(self, call: CallRecord) -> None:
        self.append(call)


class FixedToken:
    """Credentials that cannot be renewed."""

    def __init__(self, token: str) -> None:
        self._token = token

    def token(self) -> str:
        return self._token

    def renew(self, rejected: str) -> str:
        raise ReauthorizationNeededError("the access token is no longer accepted", connection="square:test")


@contextmanager
def transport(folder: Path, calls: Calls | None = None) -> Iterator[Transport]:
    opened = Transport(
        SqliteLimitStore(folder / "limits.db"),
        calls if calls is not None else Calls(),
        user_agent="flux-tests",
        retry_policy=RetryPolicy(attempts=12, waiting=False),
    )
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def square(
    url: str, folder: Path, token: str = "token", calls: Calls | None = None, **settings: Any
) -> Iterator[SquareClient]:
    connection = Connection("square:test", "tenant", settings={"base_url": url, **settings})
    with transport(folder, calls) as opened:
        client = SquareClient(SourceContext(PROVIDER, connection, FixedToken(token), opened))
        try:
            yield client
        finally:
            client.close()
