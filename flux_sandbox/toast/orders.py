"""A sale of the sandbox's world as the Order object that Toast would show of it.

Member names and conventions: the orders API's reference (2.9) and the devguide's examples. Refunds are on the payments of
the order that was sold; an emptied order stays, with `deleted: true`. What a sale comes to is `pricing.price`, to the cent.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from flux_sandbox.ids import guid
from flux_sandbox.toast.adjustments import applied_discount, charge
from flux_sandbox.toast.order_context import OrderContext, configured, device, reference
from flux_sandbox.toast.payments import payment
from flux_sandbox.toast.selections import selection, voided_selection
from flux_sandbox.toast.values import FIXED, NEVER, dollars, stamp

if TYPE_CHECKING:
    from flux_sandbox.model import Customer, Sale
    from flux_sandbox.payments import PaidTender
    from flux_sandbox.world import World

Json = dict[str, Any]

_PREPARATION = 30 * 60_000
_MISTAKES, _EMPTIED, _SPLIT, _ODD = 25, 30, 700, 10  # of 1000


class View:
    """What a reader may see: people with `guest.pi:read`, addresses with `delivery_info.address:read`, no phones by webhook."""

    def __init__(self, *, people: bool = True, addresses: bool = True, phones: bool = True) -> None:
        self.people, self.addresses, self.phones = people, addresses, phones

    @property
    def key(self) -> tuple[bool, bool, bool]:
        """What tells views apart."""
        return self.people, self.addresses, self.phones


class _Check:
    """One check in the making."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.lines: list[int] = []
        self.payments: list[PaidTender] = []
        self.charges = number == 0


def _checks(context: OrderContext, paid: Sequence[PaidTender]) -> list[_Check]:
    """Share lines and payments over checks: two guests who pay separately have one each."""
    first, second = _Check(0), _Check(1)
    lines = range(len(context.figures.lines))
    split = len(lines) > 1 and sum(one.status == "completed" for one in paid) > 1 and context.dice("split") < _SPLIT
    for index in lines:
        (second if split and index % 2 else first).lines.append(index)
    for one in paid:
        (second if split and one.index else first).payments.append(one)
    return [first, second] if split else [first]


class OrderMaker:
    """Makes Order objects."""

    def __init__(self, world: World) -> None:
        self._world = world
        #: By restaurant's world id: from when (UTC milliseconds) menus have GUIDs of which generation.
        self.published: dict[str, list[tuple[int, int]]] = {}

    def context(self, sale: Sale) -> OrderContext:
        """Return the context of a sale."""
        return OrderContext(self._world.owner(sale), sale, self.published.get(sale.location.id, ()))

    def payments(self, sale: Sale) -> list[PaidTender]:
        """Return what was paid, or tried to be, on a sale."""
        return [one for one in self._world.payments_of(sale) if one.kind == "payment"]

    def refunds(self, sale: Sale) -> list[PaidTender]:
        """Return what was given back of a sale, by payment."""
        return [
            one
            for back in self._world.refunds_of(sale)
            for one in self._world.payments_of(back)
            if one.kind == "refund"
        ]

    def order(self, sale: Sale, view: View) -> Json:
        """Return the Order object of a sale."""
        if sale.document is not None:
            return dict(sale.document)
        context = self.context(sale)
        merchant, location = context.merchant, context.location
        online = sale.source == merchant.online
        closed = stamp(sale.closed) if sale.closed is not None else None
        dining = self._dining(context, online)
        tablet = {"id": device(location.id, 0)}
        people = merchant.employees
        server = people[context.dice("server") % len(people)].id if people and not online else None
        result: Json = {
            **FIXED["order"],
            "guid": context.guid,
            "externalId": sale.reference or None,
            "revenueCenter": reference("RevenueCenter", configured(merchant, "revenue center", "Dining Room")),
            "server": reference("RestaurantUser", server) if server else None,
            "createdInTestMode": sale.test,
            "displayNumber": str(1 + context.dice("number")),
            "lastModifiedDevice": tablet,
            "createdDevice": tablet,
            "source": self._source(context, online),
            "duration": (sale.closed - sale.created) // 1000 if sale.closed is not None else None,
            "businessDate": context.day(sale.created),
            "paidDate": closed if not context.voided else None,
            "restaurantService": None if online else reference("RestaurantService", self._service(context)),
            **context.voiding(),
            "estimatedFulfillmentDate": stamp(sale.created + _PREPARATION) if online else None,
            "requiredPrepTime": "PT30M" if online else "PT0S",
            "deliveryInfo": self._delivery(sale.customer, view) if online else None,
            "numberOfGuests": 1 + context.dice("guests") % 4,
            "diningOption": dining,
            "openedDate": stamp(sale.created),
            "createdDate": stamp(sale.created if sale.arrived is None else sale.arrived),
            "closedDate": closed,
            "modifiedDate": stamp(sale.updated),
            "deleted": sale.deleted,
            "deletedDate": stamp(sale.updated) if sale.deleted else NEVER,
            "checks": self._written(context, view, dining),
        }
        if sale.corrupt:
            _corrupt(result, sale.corrupt)
        return result

    def _source(self, context: OrderContext, online: bool) -> str:
        if context.dice("source") < _ODD:
            return "Car Order"  # a channel that no list of Toast's had until it was there
        if online:
            return "Online"
        named = context.sale.source
        return named if named and "Square" not in named else "In Store"

    def _service(self, context: OrderContext) -> str:
        return configured(context.merchant, "service", "All day")

    def _dining(self, context: OrderContext, online: bool) -> Json:
        return reference("DiningOption", configured(context.merchant, "dining", "Delivery" if online else "Dine In"))

    def _delivery(self, customer: Customer | None, view: View) -> Json | None:
        if customer is None or not view.addresses:
            return None
        return {
            **FIXED["delivery"],
            "address1": customer.street,
            "city": customer.city,
            "state": customer.region,
            "administrativeArea": customer.region,
            "zipCode": customer.postal_code,
            "country": customer.country,
            "latitude": msgspec.Raw(b"42.3446671"),
            "longitude": msgspec.Raw(b"-71.1023575"),
            "notes": f"Ask for {customer.given_name}" if view.people else "",
        }

    def _written(self, context: OrderContext, view: View, dining: Json) -> list[Json]:
        sale = context.sale
        if sale.deleted:
            return [self._empty(context, 0)]
        paid, given_back = self.payments(sale), self.refunds(sale)
        refunds = self._world.refunds_of(sale)
        made = _checks(context, paid)
        result = []
        for one in made:
            check = self._check(context, one, refunds, view, dining)
            check["payments"] = [
                payment(context, p, [r for r in given_back if r.index == p.index], self._world.now_ms())
                for p in one.payments
            ]
            result.append(check)
        if sale.state == "COMPLETED" and context.dice("emptied") < _EMPTIED:
            result.append(self._empty(context, len(made)))
        return result

    def _check(self, context: OrderContext, one: _Check, refunds: Sequence[Sale], view: View, dining: Json) -> Json:
        sale, figures = context.sale, context.figures
        selections = [selection(context, i, figures.lines[i], refunds, dining) for i in one.lines]
        charges = list(enumerate(figures.charges)) if one.charges else []
        lines = [figures.lines[i] for i in one.lines]
        amount = sum(line.gross - line.discount for line in lines)
        amount += sum(c.total - c.tax for _, c in charges if not c.charge.auto_gratuity)
        tax = sum(line.tax for line in lines) + sum(c.tax for _, c in charges)
        if context.voided:
            amount = tax = 0
        items = context.merchant.items
        if (
            one.number == 0
            and items
            and sale.lines
            and sale.state == "COMPLETED"
            and context.dice("mistake") < _MISTAKES
        ):
            selections.append(voided_selection(context, items[context.dice("which") % len(items)], dining))
        shares: dict[int, int] = {}
        for line in lines:
            for i, part in line.discounts:
                if sale.discounts[i].line is None:
                    shares[i] = shares.get(i, 0) + part
        customer = sale.customer if view.people else None
        return {
            **self._frame(context, one.number),
            "paymentStatus": "OPEN" if sale.state == "OPEN" else "CLOSED",
            "amount": dollars(amount, whole=True),
            "taxAmount": dollars(tax),
            "totalAmount": dollars(amount + tax),
            "tabName": f"{customer.given_name} {customer.family_name}" if customer else None,
            "selections": selections,
            "appliedDiscounts": [
                applied_discount(context, i, n, "check", one.number) for i, n in sorted(shares.items())
            ],
            "appliedServiceCharges": [charge(context, i, c, refunds) for i, c in charges],
            "customer": _customer(customer, view),
        }

    def _frame(self, context: OrderContext, number: int) -> Json:
        """Return a check's members that have nothing to do with what is on it."""
        sale = context.sale
        tablet = {"id": device(context.location.id, number)}
        closed = stamp(sale.closed) if sale.closed is not None else None
        return {
            **FIXED["check"],
            "guid": context.made("check", number),
            "displayNumber": str(1 + context.dice(f"check{number}")),
            "lastModifiedDevice": tablet,
            "createdDevice": tablet,
            "paidDate": closed if not context.voided else None,
            "openedDate": stamp(sale.created),
            "createdDate": stamp(sale.created),
            "closedDate": closed,
            "modifiedDate": stamp(sale.updated),
            "deletedDate": NEVER,
            **context.voiding(),
        }

    def _empty(self, context: OrderContext, number: int) -> Json:
        """Return a check that a merge emptied."""
        return {
            **self._frame(context, number),
            **FIXED["emptied check"],
            "deletedDate": stamp(context.sale.updated),
            "amount": dollars(0, whole=True),
            "taxAmount": dollars(0),
            "totalAmount": dollars(0),
        }


def _customer(customer: Customer | None, view: View) -> Json | None:
    if customer is None:
        return None
    return {
        "guid": guid("toast", "customer", customer.id),
        "entityType": "Customer",
        "firstName": customer.given_name,
        "lastName": customer.family_name,
        "phone": customer.phone if view.phones else None,
        "phoneCountryCode": "1" if view.phones else None,
        "email": customer.email,
    }


def _corrupt(result: Json, kind: str) -> None:
    """Spoil an order on purpose: see `world.MALFORMED`. Toast's orders name no currency: prices become texts instead."""
    if kind == "types":
        result["checks"] = "not a list"
    elif kind == "totals":
        first = result["checks"][0]
        first["totalAmount"] = dollars(int(Decimal(bytes(first["totalAmount"]).decode()).scaleb(2)) + 1)
    elif kind == "currency":
        for one in result["checks"][0]["selections"]:
            one["price"] = f"${bytes(one['price']).decode()}"
    elif kind == "timestamp":
        result["openedDate"] = "yesterday"


class OrderWriter:
    """Serialises orders, each once for each view: what has not changed is answered from memory."""

    _MOST_BYTES = 256 * 1024 * 1024

    def __init__(self, world: World) -> None:
        self._world = world
        self.maker = OrderMaker(world)
        self._encode = msgspec.json.Encoder().encode
        self._kept: dict[tuple[str, tuple[bool, bool, bool]], tuple[tuple[int, ...], bytes]] = {}
        self._bytes = 0

    def _state(self, sale: Sale) -> tuple[int, ...]:
        """Return what the JSON depends on beside the sale itself: refunds, and fees that become known."""
        now = self._world.now_ms()
        fees = sum(one.fee_at <= now for one in self.maker.payments(sale))
        return (sale.revision, fees, *(back.revision for back in self._world.refunds_of(sale)))

    def __call__(self, sale: Sale, view: View) -> bytes:
        """Return the order's JSON."""
        key, state = (sale.id, view.key), self._state(sale)
        kept = self._kept.get(key)
        if kept is not None and kept[0] == state:
            return kept[1]
        body = self._encode(self.maker.order(sale, view))
        if kept is not None or self._bytes + len(body) <= self._MOST_BYTES:
            self._bytes += len(body) - (len(kept[1]) if kept is not None else 0)
            self._kept[key] = (state, body)
        return body
