"""Orders as they are stored: GraphQL's own nodes, made whole, whichever way they came.

A stored order is the node as received with what paging and bulk operations need to agree: its connections hold all of their
nodes and no `pageInfo`, down to the sales of its agreements; `flux_location_id` stands in front. All else is left byte for byte.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from flux_pipelines.domain.decoding import decode, decoder
from flux_pipelines.domain.errors import BadResponseError, FluxError, ProviderUnavailableError
from flux_pipelines.domain.money import to_minor
from flux_pipelines.providers.base import Order, OrderHeader
from flux_pipelines.providers.common.paging import Progress
from flux_pipelines.providers.shopify.graphql import TOO_COSTLY, Cost, GraphQL, T
from flux_pipelines.transport import RefusedError

_MOST_NODES = 250  # the most that a connection gives at once, and the most ids that `nodes` takes
_INNER_PAGE = 50
_MOST_RESTARTS = 8
_LOST_CURSOR = "INVALID_CURSOR"
_AGREEMENTS_A_PAGE = 5  # each holds a page of sales
_COMPLETED = frozenset({"PAID", "PARTIALLY_REFUNDED", "REFUNDED"})
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


class Edge(msgspec.Struct):
    """A node of a connection and the cursor behind which the connection goes on."""

    cursor: str
    node: Members


class Agreements(msgspec.Struct, rename="camel"):
    """One page of an order's agreements."""

    page_info: PageInfo
    edges: list[Edge]


class _MoreAgreements(msgspec.Struct):
    connection: Agreements | None = None


class _MoreAgreementsOf(msgspec.Struct):
    node: _MoreAgreements | None = None


class _Sales(msgspec.Struct):
    id: str
    connection: Connection


class _SalesOf(msgspec.Struct):
    nodes: list[_Sales]


class _MoreSales(msgspec.Struct):
    agreements: _SalesOf | None = None


class _MoreSalesOf(msgspec.Struct):
    node: _MoreSales | None = None


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


class _Sale(msgspec.Struct, rename="camel"):
    line_type: str
    total_amount: _Bag


class _SaleNodes(msgspec.Struct):
    nodes: list[_Sale]


class _Agreement(msgspec.Struct):
    sales: _SaleNodes


class _AgreementNodes(msgspec.Struct):
    nodes: list[_Agreement]


class _Adjustment(msgspec.Struct, rename="camel"):
    amount_set: _Bag
    tax_amount_set: _Bag


class _AdjustmentNodes(msgspec.Struct):
    nodes: list[_Adjustment]


class _Refund(msgspec.Struct, rename="camel"):
    order_adjustments: _AdjustmentNodes


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
    agreements: _AgreementNodes | None = None
    refunds: list[_Refund] = []
    total_cash_rounding_adjustment: _Rounding | None = None


_decode_head = decoder(_Head)
_decode_members = decoder(Members)
_decode_connection = decoder(Connection)
_decode_agreements = decoder(Agreements)


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
    place = decode(members.get("retailLocation", msgspec.Raw(b"null")), _Place | None)
    return place.legacy_resource_id if place is not None else shop_id


def _utc(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError("a timestamp has no offset from UTC")
    return instant.astimezone(UTC)


def _state(head: _Head) -> str:
    """Return what became of an order. Whether it is a sale is another question: see `read`."""
    if head.test:
        return "TEST"
    if head.cancelled_at is not None or head.display_financial_status == "VOIDED":
        return "CANCELED"
    return "COMPLETED" if head.display_financial_status in _COMPLETED else "OPEN"


def _amount(bag: _Bag | None) -> Decimal:
    return bag.shop_money.amount if bag is not None else _NONE


def _adjusted(head: _Head) -> Decimal:
    """Return what was given back less than its goods were worth; below zero: more.

    A whole order tells it by its agreements, a header by its refunds: an agreement's adjustment is "the difference between
    the original total value of all line items that were refunded, and the actual amount refunded" (`SaleLineType`), a
    refund's `orderAdjustments` are the same with their tax apart.
    """
    if head.agreements is not None:
        sales = (sale for agreement in head.agreements.nodes for sale in agreement.sales.nodes)
        return sum((sale.total_amount.shop_money.amount for sale in sales if sale.line_type == "ADJUSTMENT"), _NONE)
    adjustments = (one for refund in head.refunds for one in refund.order_adjustments.nodes)
    return sum((_amount(one.amount_set) + _amount(one.tax_amount_set) for one in adjustments), _NONE)


def _total(head: _Head) -> int:
    """Return what the customer owes in the end, in minor units of the shop's currency; transactions.sql follows the same rule.

    `currentTotalPriceSet` is after edits and returns. Cash rounding is not in it. Whether adjustments are, Shopify does not
    document: what was paid in the end and what is still outstanding tell. Of a cancelled order nothing is left, which its
    total does not say at once (it still has the old one in the published answer to cancelling).
    """
    current = _amount(head.current_total_price_set)
    total = current if head.cancelled_at is None else _NONE
    rounding = _NONE
    if head.total_cash_rounding_adjustment is not None:
        adjustment = head.total_cash_rounding_adjustment
        rounding = _amount(adjustment.payment_set) - _amount(adjustment.refund_set)
    adjusted = _adjusted(head)
    if adjusted and head.net_payment_set is not None and head.total_outstanding_set is not None:
        beyond = _amount(head.net_payment_set) + _amount(head.total_outstanding_set) - current
        if beyond in (adjusted, adjusted + rounding):
            total += adjusted
    return to_minor(total + rounding, head.currency_code)


def read(raw: msgspec.Raw, shop_id: str) -> Order:
    """Read an order's header; one that cannot be read is kept with the reason.

    Every order is a sale but a test: pending, unpaid and cancelled ones too (help.shopify.com, sales reports). What is
    cancelled is given back on the day of that.

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
            sold=not head.test,
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
    """Sees that the reading of a connection ends.

    It counts how often it had to be begun anew, because Shopify no longer takes its cursor, without getting on.

    Args:
        connection: the connection's key, for errors.
        what: the operation that gives the pages.

    """

    def __init__(self, connection: str, what: str) -> None:
        self._connection = connection
        self._what = what
        self._left = _MOST_RESTARTS
        self._progress = Progress(connection, what)

    def goes_on(self, page: PageInfo, records: Sequence[bytes | msgspec.Raw]) -> bool:
        """Tell whether more pages follow on one with these records.

        Raises:
            BadResponseError: they never end.

        """
        if page.has_next_page:
            self._progress.page(page.end_cursor, records)
        return page.has_next_page

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
        self._progress = Progress(self._connection, self._what)

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
    """Makes orders whole: further pages of their lines, of their agreements and of those agreements' sales.

    Args:
        graphql: the connection's calls.
        shop_id: the location of orders that were made at no counter.

    """

    def __init__(self, graphql: GraphQL, shop_id: Callable[[], str]) -> None:
        self._graphql = graphql
        self._shop_id = shop_id
        self._by_id = Sizer(10)

    def whole(self, nodes: Iterable[msgspec.Raw | Members]) -> list[Order]:
        """Return the orders of these nodes, in their order."""
        return [order for order in map(self._order, nodes) if order is not None]

    def by_id(self, ids: Sequence[str]) -> list[Order]:
        """Return the orders of these global ids as they are now; those that do not exist are left out."""
        ids = list(dict.fromkeys(ids))
        found: list[Order] = []
        asked = 0
        while asked < len(ids):
            answer = sized(self._graphql, "orders_by_id", self._by_id, _first_ids(ids[asked:]), _ById)
            if not answer.nodes:
                raise BadResponseError(
                    "Shopify gives no nodes for ids that were asked for", connection=self._graphql.connection
                )
            asked += len(answer.nodes)
            found += self.whole(node for node in answer.nodes if bytes(node) != b"null")
        return found

    def _order(self, node: msgspec.Raw | Members) -> Order | None:
        try:
            members = node if isinstance(node, dict) else _decode_members(node)
            if "id" not in members:  # the id of something that is not an order
                return None
            owner = decode(members["id"], str)
            self._close(members, owner)
            place = location_of(members, self._shop_id())
            placed = {LOCATION: msgspec.Raw(msgspec.json.encode(place)), **members}
            return read(msgspec.Raw(msgspec.json.encode(placed)), place)
        except (msgspec.DecodeError, KeyError) as problem:
            return _unreadable(node, problem)

    def _close(self, members: Members, owner: str) -> None:
        """Replace each connection by one that holds all of its nodes; what a bulk operation gave is whole already."""
        lines = _decode_connection(members["lineItems"])
        members["lineItems"] = nodes_only(rest_of(self._graphql, "more_lines", owner, lines, _INNER_PAGE))
        agreements = _decode_agreements(members["agreements"])
        members["agreements"] = nodes_only(_agreements_of(self._graphql, owner, agreements))


def _agreements_of(graphql: GraphQL, owner: str, first: Agreements) -> list[msgspec.Raw]:
    """Return every agreement of an order with all of its sales."""
    page, found = first, list[msgspec.Raw]()
    before: str | None = None
    restarts = Restarts(graphql.connection, "more_agreements")
    more_follow = restarts.goes_on(page.page_info, _cursors(page))
    while True:
        for edge in page.edges:
            sales = _decode_connection(edge.node["sales"])
            nodes = _sales_of(graphql, owner, edge, before, sales) if sales.page_info.has_next_page else sales.nodes
            found.append(msgspec.Raw(msgspec.json.encode({**edge.node, "sales": nodes_only(nodes)})))
            before = edge.cursor
        if not more_follow:
            return found
        after = page.page_info.end_cursor
        variables = {"id": owner, "first": _AGREEMENTS_A_PAGE, "after": after}
        try:
            more, _ = graphql.run("more_agreements", variables, _MoreAgreementsOf)
        except RefusedError as refused:
            restarts.allow(refused, after)
            found, before = [], None
            page = Agreements(PageInfo(has_next_page=True), [])
            continue
        if more.node is None or more.node.connection is None:
            return found  # deleted meanwhile: what changed will be asked for again
        page = more.node.connection
        more_follow = restarts.goes_on(page.page_info, _cursors(page))


def _cursors(page: Agreements) -> list[bytes]:
    return [edge.cursor.encode() for edge in page.edges]


def _sales_of(graphql: GraphQL, owner: str, edge: Edge, before: str | None, first: Connection) -> list[msgspec.Raw]:
    """Return every sale of an agreement; `before` is the cursor of the agreement that stands before it."""
    agreement = decode(edge.node["id"], str)
    nodes, info = list(first.nodes), first.page_info
    restarts = Restarts(graphql.connection, "more_sales")
    more_follow = restarts.goes_on(info, nodes)
    while more_follow:
        variables = {"id": owner, "agreement": before, "first": _INNER_PAGE, "after": info.end_cursor}
        try:
            more, _ = graphql.run("more_sales", variables, _MoreSalesOf)
        except RefusedError as refused:
            restarts.allow(refused, info.end_cursor)
            nodes, info = [], PageInfo(has_next_page=True)
            continue
        if more.node is None or more.node.agreements is None:
            return nodes  # deleted meanwhile: what changed will be asked for again
        page = next((one.connection for one in more.node.agreements.nodes if one.id == agreement), None)
        if page is None:
            raise ProviderUnavailableError(
                "an order's agreements changed while their sales were read", connection=graphql.connection
            )
        nodes += page.nodes
        info = page.page_info
        more_follow = restarts.goes_on(info, page.nodes)
    return nodes


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
    restarts = Restarts(graphql.connection, more)
    more_follow = restarts.goes_on(info, nodes)
    while more_follow:
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
        more_follow = restarts.goes_on(info, found.node.connection.nodes)
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
