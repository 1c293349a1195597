"""Calls to record, in the shape that the transport records them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass(frozen=True)
class call:
    provider: str = "square"
    connection: str = "square:acme"
    method: str = "POST"
    url: str = "https://connect.squareup.com/v2/orders/search"
    status: int | None = 200
    seconds: float = 0.12
    attempt: int = 1
    bytes: int = 4096
    waited: float = 0.0
    error: str | None = None
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
