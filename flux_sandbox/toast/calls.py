"""A request of Toast's API, read and allowed, and what answers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from starlette.requests import Request

    from flux_sandbox.model import Location, Merchant
    from flux_sandbox.toast.auth import Client
    from flux_sandbox.toast.orders import View


class Call(NamedTuple):
    """One request, read and allowed."""

    request: Request
    body: Any
    client: Client
    restaurant: Location | None
    view: View

    @property
    def merchant(self) -> Merchant:
        """Whose client asks."""
        return self.client.merchant

    @property
    def query(self) -> Mapping[str, str]:
        """The query's parameters."""
        return self.request.query_params

    @property
    def here(self) -> Location:
        """The restaurant that the header names."""
        assert self.restaurant is not None  # noqa: S101 (checked before the call is made)
        return self.restaurant


class Answer(NamedTuple):
    """What an endpoint answers: a body in JSON, and headers beside the usual."""

    body: bytes
    headers: Mapping[str, str] = {}
    status: int = 200


class Endpoint(NamedTuple):
    """What is particular to one path."""

    name: str
    method: str
    path: str
    answer: Callable[[Call], Any]  # an `Answer`, or what is answered in JSON
    scope: str
    restaurant: bool = True  # whether the header that names the restaurant is needed
