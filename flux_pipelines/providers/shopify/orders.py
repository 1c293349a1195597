"""Orders as they are stored: GraphQL's own nodes, made whole, whichever way they came.

A stored order is the node as received with what paging and bulk operations need to agree: its connections hold all of their
nodes and no `pageInfo`, and its refunds are complete; `flux_location_id` stands in front. All else is left byte for byte.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from flux_pipelines.domain.errors import BadResponseError, FluxError, ProviderUnavailableError
from flux_pipelines.domain.money import to_minor
from flux_pipelines.providers.base import Order, OrderHeader
from flux_pipelines.providers.shopify.graphql import TOO_COSTLY, Cost, GraphQL, T
from flux_pipelines.transport import RefusedError

_MOST_NODES = 250  # the most that a connection gives at once, and the most ids that `nodes` takes
_INNER_PAGE = 50
_MOST_RESTARTS = 8
_LOST_CURSOR = "INVALID_CURSOR"
_COMPLETED = frozenset({"PAID", "PARTIALLY_REFUNDED", "REFUNDED"})
#: The connections of an order and of a refund, with the operation that gives more of each.
ORDER_CONNECTIONS = {"lineItems": "more_lines", "shippingLines": "more_shipping"}
REFUND_CONNECTIONS = {
    "refundLineItems": "more_refund_lines",
    "refundShippingLines": "more_refund_shipping",
    "orderAdjustments": "more_adjustments",
}
_NONE = Decimal(0)
#: The one member that is put into a stored order: the SQL cannot know the shop's own id.
LOCATION = "flux_location_id"

Members = dict[str, msgspec.Raw]


class PageInfo(msgspec.Struct, rename="camel"):
    """Where a connection goes on."""

    has_next_page: bool
    end_cursor: str | None = None


class Connection(msgspec.Struct, rename="camel"):
    """One page of a connection, its nodes not decoded."""

    page_info: PageInfo
    nodes: list[msgspec.Raw]


class More(msgspec.Struct):
    """A further page of an inner connection; None when what it belongs to is gone."""

    connection: Connection | None = None


class MoreOf(msgspec.Struct):
    """The answer of the `more_*` operations."""

    node: More | None = None


class _ById(msgspec.Struct):
    nodes: list[msgspec.Raw]


class _Money(msgspec.Struct):
    amount: Decimal


class _Bag(msgspec.Struct, rename="camel"):
    shop_money: _Money


class _Rounding(msgspec.Struct, rename="camel"):
    payment_set: _Bag
    refund_set: _Bag


class _Place(msgspec.Struct, rename="camel"):
    legacy_resource_id: str


class _Head(msgspec.Struct, rename="camel"):
    legacy_resource_id: str
    processed_at: datetime
    updated_at: datetime
    currency_code: str
    current_total_price_set: _Bag
    test: bool = False
    closed_at: datetime | None = None
    cancelled_at: datetime | None = None
    display_financial_status: str | None = None
    retail_location: _Place | None = None
    net_payment_set: _Bag | None = None
    total_outstanding_set: _Bag | None = None
    refund_discrepancy_set: _Bag | None = None
    total_cash_rounding_adjustment: _Rounding | None = None


_decode_head = msgspec.json.Decoder(_Head).decode
_decode_members = msgspec.json.Decoder(Members).decode
_decode_connection = msgspec.json.Decoder(Connection).decode
_decode_refunds = msgspec.json.Decoder(list[Members]).decode


def gid(kind: str, number: str) -> str:
    """Return Shopify's global id of a numeric one: `gid://shopify/Order/450789469`."""
    return f"gid://shopify/{kind}/{number}"


def number_of(global_id: str) -> str:
    """Return the numeric id at the end of a global one."""
    return global_id.rpartition("/")[2].partition("?")[0]


def location_of(members: Members, shop_id: str) -> str:
    """Return where an order was made: at a counter, or else in the web shop, whose location is the shop itself.

    The place that an online order is sent from is none: it is known days later, and there can be several.
    """
    place = msgspec.json.decode(members.get("retailLocation", msgspec.Raw(b"null")), type=_Place | None)
    return place.legacy_resource_id if place is not None else shop_id


def _utc(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError("a timestamp has no offset from UTC")
    return instant.astimezone(UTC)


def _state(head: _Head) -> str:
    """Return what an order counts as.

    Cancelled, or its payment voided: a void. Paid (and refunded since, or not): a sale. Test orders: never a sale. What
    waits for its payment (pending, authorised, partly paid, expired) stays open: it counts from the day it was processed
    as soon as it is paid.
    """
    if head.test:
        return "TEST"
    if head.cancelled_at is not None or head.display_financial_status == "VOIDED":
        return "CANCELED"
    return "COMPLETED" if head.display_financial_status in _COMPLETED else "OPEN"


def _amount(bag: _Bag | None) -> Decimal:
    return bag.shop_money.amount if bag is not None else _NONE


def _total(head: _Head) -> int:
    """Return what the customer owes in the end, in minor units of the shop's currency; transactions.sql follows the same rule.

    `currentTotalPriceSet` is after edits and refunds of lines and shipping. Cash rounding is not in it. Whether differences
    between what was calculated and what was refunded are in it, Shopify does not document: what was paid in the end
    and what is still outstanding tell.
    """
    total = _amount(head.current_total_price_set)
    rounding = _NONE
    if head.total_cash_rounding_adjustment is not None:
        adjustment = head.total_cash_rounding_adjustment
        rounding = _amount(adjustment.payment_set) - _amount(adjustment.refund_set)
    discrepancy = _amount(head.refund_discrepancy_set)
    if discrepancy and head.net_payment_set is not None and head.total_outstanding_set is not None:
        beyond = _amount(head.net_payment_set) + _amount(head.total_outstanding_set) - total
        if beyond in (discrepancy, discrepancy + rounding):
            total += discrepancy
    return to_minor(total + rounding, head.currency_code)


def read(raw: msgspec.Raw, shop_id: str) -> Order:
    """Read an order's header; one that cannot be read is kept with the reason.

    Args:
        raw: the order.
        shop_id: the location of an order that was made at no counter.

    """
    try:
        head = _decode_head(raw)
        closed = head.cancelled_at or head.closed_at or head.processed_at
        header = OrderHeader(
            head.legacy_resource_id,
            head.retail_location.legacy_resource_id if head.retail_location is not None else shop_id,
            _utc(head.processed_at),
            _utc(head.updated_at),
            _utc(closed),
            _state(head),
            _total(head),
            head.currency_code,
        )
    except (msgspec.DecodeError, ValueError, ArithmeticError, FluxError) as problem:
        return Order(raw, None, f"the order's header cannot be read: {problem}")
    return Order(raw, header)


class Sizer:
    """How many nodes to ask for: more while they are cheap, fewer when Shopify says that a query could cost too much."""

    def __init__(self, first: int, most: int = _MOST_NODES) -> None:
        self._size, self._most = first, most
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """The number to ask for now."""
        return self._size

    def shrink(self, refused: int) -> bool:
        """Ask for less than what was refused; False when it was one."""
        with self._lock:
            self._most = max(1, min(self._most, refused - 1))
            self._size = max(1, min(self._size, refused // 2))
        return refused > 1

    def learn(self, size: int, cost: Cost) -> None:
        """Ask for more next time, if this was cheap."""
        requested = cost.requestedQueryCost
        with self._lock:
            if requested is not None and requested < 500 and size >= self._size:
                self._size = min(self._most, size * 2)


class Restarts:
    """Counts how often a connection had to be begun anew, because Shopify no longer takes its cursor, without getting on."""

    def __init__(self, connection: str) -> None:
        self._connection = connection
        self._left = _MOST_RESTARTS

    def allow(self, refused: RefusedError, after: str | None) -> None:
        """Return when the connection may be begun anew; raise what was refused when it was not for the cursor.

        Raises:
            RefusedError: it was refused for another reason.
            ProviderUnavailableError: cursors are refused again and again.

        """
        if after is None or (_LOST_CURSOR not in refused.codes and "cursor" not in refused.what.lower()):
            raise refused
        self._left -= 1
        if self._left < 0:
            raise ProviderUnavailableError(
                "Shopify refuses its cursors before the next page can be read", connection=self._connection
            ) from refused

    def got_on(self) -> None:
        """Begin counting anew: there was something new."""
        self._left = _MOST_RESTARTS


def sized(graphql: GraphQL, name: str, sizer: Sizer, variables: Callable[[int], dict[str, Any]], kind: type[T]) -> T:
    """Run an operation with as many nodes as a query may ask for.

    Args:
        graphql: the connection's calls.
        name: the operation.
        sizer: how many it may ask for.
        variables: makes the variables of a number of nodes.
        kind: what the answer is decoded as.

    """
    while True:
        size = sizer.size
        try:
            found, cost = graphql.run(name, variables(size), kind)
        except RefusedError as refused:
            if TOO_COSTLY not in refused.codes or not sizer.shrink(size):
                raise
            continue
        sizer.learn(size, cost)
        return found


class Completer:
    """Makes orders whole: further pages of their connections, and refunds.

    Args:
        graphql: the connection's calls.
        shop_id: the location of orders that were made at no counter.

    """

    def __init__(self, graphql: GraphQL, shop_id: Callable[[], str]) -> None:
        self._graphql = graphql
        self._shop_id = shop_id
        self._by_id = Sizer(10)

    def whole(self, nodes: Iterable[msgspec.Raw | Members]) -> list[Order]:
        """Return the orders of these nodes, in their order; those with refunds are asked for again by their ids."""
        made: list[Order | str] = []
        for node in nodes:
            try:
                members = node if isinstance(node, dict) else _decode_members(node)
                if bytes(members.get("refunds", b"[]")) not in (b"[]", b"null"):
                    made.append(msgspec.json.decode(members["id"], type=str))
                else:
                    made.append(self._order(members))
            except (msgspec.DecodeError, KeyError) as problem:
                made.append(_unreadable(node, problem))
        ids = [one for one in made if isinstance(one, str)]
        again = dict(zip(ids, self._again(ids), strict=True)) if ids else {}
        found = [again[one] if isinstance(one, str) else one for one in made]
        return [order for order in found if order is not None]

    def by_id(self, ids: Sequence[str]) -> list[Order]:
        """Return the orders of these global ids as they are now; those that do not exist are left out."""
        return [order for order in self._again(list(dict.fromkeys(ids))) if order is not None]

    def _again(self, ids: Sequence[str]) -> list[Order | None]:
        found: list[Order | None] = []
        while len(found) < len(ids):
            rest = ids[len(found) :]
            answer = sized(self._graphql, "orders_by_id", self._by_id, _first_ids(rest), _ById)
            if not answer.nodes:
                raise BadResponseError(
                    "Shopify gives no nodes for ids that were asked for", connection=self._graphql.connection
                )
            for node in answer.nodes:
                found.append(None if bytes(node) == b"null" else self._refunded(node))
        return found

    def _refunded(self, node: msgspec.Raw) -> Order | None:
        try:
            members = _decode_members(node)
            if "id" not in members:  # the id of something that is not an order
                return None
            refunds = _decode_refunds(members["refunds"])
            for refund in refunds:
                self._close(refund, REFUND_CONNECTIONS)
            members["refunds"] = msgspec.Raw(msgspec.json.encode(refunds))
            return self._order(members)
        except (msgspec.DecodeError, KeyError) as problem:
            return _unreadable(node, problem)

    def _order(self, members: Members) -> Order:
        self._close(members, ORDER_CONNECTIONS)
        place = location_of(members, self._shop_id())
        placed = {LOCATION: msgspec.Raw(msgspec.json.encode(place)), **members}
        return read(msgspec.Raw(msgspec.json.encode(placed)), place)

    def _close(self, members: Members, connections: dict[str, str]) -> None:
        """Replace each connection by one that holds all of its nodes."""
        for name, more in connections.items():
            connection = _decode_connection(members[name])
            nodes = connection.nodes
            if connection.page_info.has_next_page:
                owner = msgspec.json.decode(members["id"], type=str)
                nodes = rest_of(self._graphql, more, owner, connection, _INNER_PAGE)
            members[name] = nodes_only(nodes)


def rest_of(graphql: GraphQL, more: str, owner: str, first: Connection, size: int) -> list[msgspec.Raw]:
    """Return every node of a connection whose first page is known.

    Args:
        graphql: the connection's calls.
        more: the operation that gives further pages.
        owner: the global id of what the connection belongs to.
        first: its first page.
        size: how many nodes to ask for at once.

    """
    nodes, info = list(first.nodes), first.page_info
    restarts = Restarts(graphql.connection)
    while info.has_next_page:
        try:
            found, _ = graphql.run(more, {"id": owner, "first": size, "after": info.end_cursor}, MoreOf)
        except RefusedError as refused:
            restarts.allow(refused, info.end_cursor)
            nodes, info = [], PageInfo(has_next_page=True)
            continue
        if found.node is None or found.node.connection is None:
            break  # deleted meanwhile: what changed will be asked for again
        nodes += found.node.connection.nodes
        info = found.node.connection.page_info
    return nodes


def with_first(variables: Mapping[str, Any]) -> Callable[[int], dict[str, Any]]:
    """Return what makes the variables of a page of so many nodes."""
    return lambda size: {**variables, "first": size}


def _first_ids(ids: Sequence[str]) -> Callable[[int], dict[str, Any]]:
    return lambda size: {"ids": ids[:size]}


def nodes_only(nodes: Sequence[msgspec.Raw]) -> msgspec.Raw:
    """Return a connection that holds nodes and nothing else."""
    return msgspec.Raw(b'{"nodes":[' + b",".join(map(bytes, nodes)) + b"]}")


def _unreadable(node: msgspec.Raw | Members, problem: Exception) -> Order:
    raw = msgspec.Raw(msgspec.json.encode(node)) if isinstance(node, dict) else node
    return Order(raw, None, f"the order is not in the form that was asked for: {problem!r}")
