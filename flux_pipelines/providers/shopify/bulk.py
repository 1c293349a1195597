"""Bulk operations: Shopify runs a query over a whole shop and leaves the result in a file.

One object a line; the nodes of connections are lines of their own that name their parent, before or long after it.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from flux_pipelines.domain.decoding import decode, decoder
from flux_pipelines.domain.errors import FluxError
from flux_pipelines.providers.shopify.graphql import GraphQL
from flux_pipelines.providers.shopify.orders import Members
from flux_pipelines.providers.shopify.queries import bulk_orders

_log = logging.getLogger(__name__)

#: Shopify runs so many for an app and a shop at a time since version 2026-01.
MOST_AT_ONCE: Final = 5
#: The largest file that is fetched; the transport holds an answer in memory.
LARGEST_FILE: Final = 192 * 1024 * 1024
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 10.0
_PATIENCE = 1800.0  # seconds in which nothing more was found
_DEADLINE = 2 * 3600.0  # seconds of waiting for one operation, whatever it says of itself
#: Lines of a file; Shopify's largest order has some thousands. Each becomes an object of several hundred bytes.
_MOST_LINES: Final = 1_000_000
_STARTS = 6
_BUSY = frozenset({"LIMIT_REACHED", "OPERATION_IN_PROGRESS"})
_ENDED = frozenset({"COMPLETED", "FAILED", "CANCELED", "EXPIRED"})


class BulkUnavailableError(Exception):
    """A bulk operation did not give the orders; they can be had page by page."""


class BulkTooLargeError(Exception):
    """The file would be too large: a shorter window is needed."""


class _UserError(msgspec.Struct):
    message: str = ""
    code: str | None = None


class _Operation(msgspec.Struct, rename="camel"):
    id: str
    status: str
    error_code: str | None = None
    object_count: str = "0"
    root_object_count: str = "0"
    file_size: str | None = None
    url: str | None = None


class _Started(msgspec.Struct, rename="camel"):
    bulk_operation: _Operation | None = None
    user_errors: list[_UserError] = []


class _Run(msgspec.Struct, rename="camel"):
    bulk_operation_run_query: _Started


class _Poll(msgspec.Struct, rename="camel"):
    bulk_operation: _Operation | None = None


class _Cancelled(msgspec.Struct):
    bulkOperationCancel: msgspec.Raw


#: Where a connection goes on that a bulk operation gave as a whole: nowhere.
_WHOLE: Final = {"hasNextPage": False}
_NO_CURSOR: Final = ""

_decode_members = decoder(Members)


class BulkOrders:
    """The bulk operations of one connection. Safe to use from threads."""

    def __init__(self, graphql: GraphQL) -> None:
        self._graphql = graphql
        self._room = threading.Semaphore(MOST_AT_ONCE)

    def find(self, search: str) -> list[Members]:
        """Return every order that a search finds, oldest first, connections and all.

        Raises:
            BulkUnavailableError: it cannot be had this way.
            BulkTooLargeError: there are too many for one file.
            FluxError: Shopify cannot be asked at all.

        """
        with self._room:
            operation = self._start(search)
            try:
                operation = self._wait(operation)
            except BaseException:
                self._cancel(operation)
                raise
        if operation.status != "COMPLETED":
            raise BulkUnavailableError(f"it ended as {operation.status} ({operation.error_code or 'no reason given'})")
        if operation.url is None:
            if int(operation.root_object_count):
                raise BulkUnavailableError("it found orders, but there is no file")
            return []
        if operation.file_size is not None and int(operation.file_size) > LARGEST_FILE:
            raise BulkTooLargeError
        try:
            content = self._graphql.download(operation.url)
        except FluxError as problem:
            raise BulkUnavailableError(f"its file cannot be fetched: {problem.what}") from problem
        if content.count(b"\n") > _MOST_LINES:
            raise BulkTooLargeError
        return assemble(content, int(operation.root_object_count), int(operation.object_count))

    def _start(self, search: str) -> _Operation:
        """Start an operation. It only reads: one that was started and lost does no harm."""
        pause = 1.0
        for _ in range(_STARTS):
            run, _cost = self._graphql.run("bulk_run", {"query": bulk_orders(search)}, _Run)
            started = run.bulk_operation_run_query
            if started.bulk_operation is not None and not started.user_errors:
                return started.bulk_operation
            if _BUSY.isdisjoint({error.code for error in started.user_errors}):
                said = "; ".join(error.message for error in started.user_errors)
                raise BulkUnavailableError(f"it is refused: {said}")
            self._graphql.api.pause(pause)
            pause *= 2
        raise BulkUnavailableError("other bulk operations of this app leave no room")

    def _wait(self, operation: _Operation) -> _Operation:
        pause, idle, waited = _FIRST_PAUSE, 0.0, 0.0
        while operation.status not in _ENDED:
            self._graphql.api.pause(pause)
            idle += pause
            waited += pause
            pause = min(_LONGEST_PAUSE, pause * 1.5)
            poll, _ = self._graphql.run("bulk_poll", {"id": operation.id}, _Poll)
            if poll.bulk_operation is None:
                raise BulkUnavailableError("Shopify no longer knows it")
            if poll.bulk_operation.object_count != operation.object_count:
                idle = 0.0
            operation = poll.bulk_operation
            if idle > _PATIENCE:
                raise BulkUnavailableError(f"it has found nothing more for {_PATIENCE / 60:.0f} minutes")
            if waited > _DEADLINE and operation.status not in _ENDED:
                raise BulkUnavailableError(f"it has not ended after {_DEADLINE / 3600:.0f} hours")
        return operation

    def _cancel(self, operation: _Operation) -> None:
        """Free the place that an operation nobody waits for would keep."""
        try:
            self._graphql.run("bulk_cancel", {"id": operation.id}, _Cancelled)
        except FluxError as problem:
            _log.warning("%s: the bulk operation %s goes on: %s", self._graphql.connection, operation.id, problem.what)


def assemble(content: bytes, roots: int, objects: int) -> list[Members]:
    """Put the lines of a file together into nodes of the shape that paging gives.

    Args:
        content: the file.
        roots: how many orders Shopify says it has.
        objects: how many lines.

    Raises:
        BulkUnavailableError: it does not have them all, or a line is damaged.

    """
    orders: dict[str, Members] = {}
    agreements: dict[str, Members] = {}
    children: dict[str, list[Members]] = {}
    count = 0
    try:
        for line in io.BytesIO(content):
            members = _decode_members(line)
            count += 1
            parent = members.pop("__parentId", None)
            if parent is None:
                orders[_text(members["id"])] = members
                continue
            if "happenedAt" in members:
                agreements[_text(members["id"])] = members
            children.setdefault(_text(parent), []).append(members)
    except (msgspec.DecodeError, KeyError) as problem:
        raise BulkUnavailableError(f"a line of its file is damaged: {problem!r}") from problem
    if len(orders) != roots or count != objects or not orders.keys() | agreements.keys() >= children.keys():
        raise BulkUnavailableError(
            f"its file has {len(orders)} orders and {count} lines, and should have {roots} and {objects}"
        )
    for agreement_id, members in agreements.items():
        members["sales"] = _page(_raw(sale) for sale in children.get(agreement_id, ()))
    for order_id, members in orders.items():
        below = children.get(order_id, ())
        members["lineItems"] = _page(_raw(one) for one in below if "happenedAt" not in one)
        edges = ({"cursor": _NO_CURSOR, "node": _raw(one)} for one in below if "happenedAt" in one)
        members["agreements"] = _raw({"pageInfo": _WHOLE, "edges": list(edges)})
    return sorted(orders.values(), key=lambda members: bytes(members.get("processedAt", b"")))


def _text(raw: msgspec.Raw) -> str:
    return decode(raw, str)


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _page(nodes: Iterable[msgspec.Raw]) -> msgspec.Raw:
    """Return a connection as paging gives one whose only page this is."""
    return _raw({"pageInfo": _WHOLE, "nodes": list(nodes)})
