"""Records that are given out as Square once sent them (`POST /sandbox/documents`): which there are, and what finds them.

The kinds are called as the members of Square's answers that hold them. Of records with one id the last that came stands:
at Square, too, a newer version takes the place of the older one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast, get_args

from flux_pipelines.domain.errors import ConfigurationError
from flux_sandbox.documents import ORDERS, Found
from flux_sandbox.model import State
from flux_sandbox.square.errors import ApiError
from flux_sandbox.square.params import instant

if TYPE_CHECKING:
    from collections.abc import Iterator

Document = Mapping[str, Any]

PAYMENTS, REFUNDS, OBJECTS, COUNTS = "payments", "refunds", "objects", "counts"
KINDS = frozenset({ORDERS, PAYMENTS, REFUNDS, OBJECTS, COUNTS})


def within(record: Any, *path: str) -> Any:
    """Return what a record has at a path of members; nothing, if it has no such member."""
    for name in path:
        record = record.get(name) if isinstance(record, Mapping) else None
    return record


def when(record: Document, *path: str) -> int | None:
    """Return the instant at a path of members, UTC milliseconds; None if there is none that can be read."""
    try:
        return instant(within(record, *path), ".".join(path)) // 1_000_000
    except ApiError:
        return None


def newest(records: Iterable[Document]) -> Iterator[tuple[str, Document]]:
    """Yield the records by their ids, of each id the one that came last."""
    yield from {str(one.get("id", "")): one for one in records}.items()


def find_by(order: Document) -> Found:
    """Return what an order is found by: see `DocumentedSandbox`."""
    id_, state = order.get("id"), order.get("state")
    if not isinstance(id_, str) or not id_:
        raise ConfigurationError("the order does not say its `id`")
    if state not in get_args(State):
        raise ConfigurationError(
            f"the order {id_!r} has the state {state!r}", next_step=f"The sandbox plays {', '.join(get_args(State))}."
        )
    created = _told(order, "created_at")
    updated = created if order.get("updated_at") is None else _told(order, "updated_at")
    # Square gives every order that reached its end this instant, and no other.
    closed = None if state == "OPEN" else _told(order, "closed_at")
    return Found(id_, created, updated, closed, cast("State", state))


def _told(order: Document, member: str) -> int:
    at = when(order, member)
    if at is None:
        raise ConfigurationError(
            f"the order {order['id']!r} does not say its `{member}`",
            next_step="Give an RFC 3339 time: 2026-03-02T12:00:00Z.",
        )
    return at
