"""A connection: one authorised account at one provider, for one tenant."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flux_pipelines.domain.errors import ConfigurationError

#: `needs_reauth`: the provider no longer accepts it. `disconnected`: a person gave it up, and its credentials are gone.
Status = Literal["active", "needs_reauth", "paused", "disconnected"]

_KEY = re.compile(r"^(?P<provider>[a-z][a-z0-9_]{0,31}):(?P<name>[a-z0-9][a-z0-9_-]{0,62})$")


def split_key(key: str) -> tuple[str, str]:
    """Split `square:acme` into provider and name.

    Raises:
        ConfigurationError: the key does not have that form.

    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise ConfigurationError(
            f"{key!r} is not a connection name",
            next_step="Write it as provider:name, in lower-case letters, digits, - and _ (for example square:acme).",
        )
    return match["provider"], match["name"]


@dataclass(frozen=True, slots=True)
class Connection:
    """What every room may know of a connection. Credentials are not part of it: they stay in the vault."""

    key: str
    tenant: str
    account_id: str = ""
    status: Status = "active"
    status_reason: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def provider(self) -> str:
        """The provider's name: `square` of `square:acme`."""
        return self.key.partition(":")[0]

    @property
    def cutoff_hour(self) -> int:
        """The local hour at which this connection's trading day ends (0 to 23)."""
        return int(self.settings.get("cutoff_hour", 0))
