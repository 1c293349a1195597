"""Records given out exactly as a provider once sent them: the order of a support case, an example of the documentation.

The world makes its own records up; these stand among them, found by the same queries and on the same pages. Nothing is
known about them but what the provider's sandbox reads out of an order to find it by, so no truth counts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from starlette.routing import Route

from flux_pipelines.domain.errors import ConfigurationError
from flux_sandbox.answers import Body, actor, needed
from flux_sandbox.model import Document, Merchant, Sale, State
from flux_sandbox.world import World

ORDERS = "orders"


class Found(NamedTuple):
    """What an order is found by: its id and instants (UTC milliseconds)."""

    id: str
    created: int
    updated: int
    closed: int | None
    state: State


@runtime_checkable
class DocumentedSandbox(Protocol):
    """A provider's sandbox that gives out records which are not made up."""

    name: str
    #: The kinds of record it gives out, in the provider's own words; `orders` are findable by time.
    document_kinds: frozenset[str]

    def find_by(self, order: Mapping[str, Any]) -> Found:
        """Return what an order is found by.

        Raises:
            ConfigurationError: the order does not say.

        """


def documents(merchant: Merchant, kind: str, location_id: str | None = None) -> list[Mapping[str, Any]]:
    """Return a merchant's records of a kind that are not made up, of one store or of all, in the order they came."""
    return [
        one.body
        for one in merchant.documents
        if one.kind == kind and (location_id is None or one.location_id == location_id)
    ]


class DocumentControl:
    """Takes records in, below /sandbox."""

    def __init__(self, world: World, providers: Sequence[Any]) -> None:
        self.world = world
        self._providers = {one.name: one for one in providers if isinstance(one, DocumentedSandbox)}

    @property
    def routes(self) -> list[Route]:
        """The path."""
        return [Route("/sandbox/documents", actor(self._take), methods=["POST"])]

    def _take(self, body: Body) -> Body:
        """Take in a record: `location_id`, `kind`, `document`."""
        location = self.world.location(needed(body, "location_id"))
        merchant = self.world.merchants[location.merchant_id]
        provider = self._providers.get(merchant.provider)
        kind, document = needed(body, "kind"), body.get("document")
        known = provider.document_kinds if provider is not None else frozenset()
        if provider is None or kind not in known:
            raise ConfigurationError(
                f"the sandbox of {merchant.provider} takes in no {kind!r}",
                next_step=f"It takes in: {', '.join(sorted(known)) or 'nothing'}.",
            )
        if not isinstance(document, dict):
            raise ConfigurationError("`document` must be a JSON object")
        told = {"kind": kind, "location_id": location.id}
        if kind == ORDERS:
            found = provider.find_by(document)
            if found.id in self.world.sales:
                raise ConfigurationError(f"the sandbox has an order {found.id!r} already")
            self.world.add(Sale(found.id, location, *found[1:], document=document))
            told["order_id"] = found.id
        merchant.documents.append(Document(kind, location.id, document))
        return told
