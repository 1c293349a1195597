"""What the client of a provider says that has nothing particular to say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from flux_pipelines.providers.base import TimeField, Window

if TYPE_CHECKING:
    from flux_pipelines.transport.client import ApiClient


class PlainSource:
    """The part of a `Source` that is alike where lists come oldest first, nothing is too old, and no stream is daily."""

    max_locations_per_window = 1
    by_business_date = False
    verified_by: Literal["closed", "updated"] = "updated"
    verification_is_whole = True
    _api: ApiClient

    def supports_slicing(self, window: Window, time_field: TimeField) -> bool:  # noqa: ARG002
        """Tell that every window comes oldest first."""
        return True

    def history_from(self, now: datetime) -> datetime | None:  # noqa: ARG002
        """Tell that everything is kept."""
        return None

    def changes(self, stream: str, window: Window) -> Iterator[tuple[str, datetime]]:  # noqa: ARG002
        """Yield nothing: that is asked of daily streams alone."""
        return iter(())

    def close(self) -> None:
        """Release the HTTP connections."""
        self._api.close()
