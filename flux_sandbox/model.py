"""What the world is made of: stores, goods, and what was really sold. Providers' JSON is made from this, never read back.

Amounts are integer minor units. Rates are millionths (7.25 % is 72,500), beside the text that a receipt shows.
Quantities are integers scaled by `10 ** precision`, so that weighed goods stay exact. Instants are UTC milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, NamedTuple

LineKind = Literal["ITEM", "CUSTOM_AMOUNT", "GIFT_CARD"]
State = Literal["OPEN", "COMPLETED", "CANCELED"]
IdStyle = Literal["token", "guid", "number"]
Trade = Literal["counter", "restaurant", "shop"]
#: When an order counts in the merchant's own report at the provider: once, when it is `paid` in full; on the day that it
#: is `dated`, paid or not, and refunds on theirs; when it is `placed`, whatever became of it, and every change on its own
#: day: edits, refunds, and a cancellation, which takes everything back.
CountsWhen = Literal["paid", "dated", "placed"]
#: What the account's provider does not tell, or tells in another way than the truth does, so that no table can have it: which
#: part of a refund was a tip; times of work to the second; the ids of goods that were deleted, in old orders too; modifiers
#: apart from products; stock as a number of everything (what is left is counted down, of the rest there is some or none).
Quirk = Literal["refund_tips", "seconds_of_work", "deleted_goods", "modifiers_apart", "whole_stock"]


@dataclass(frozen=True, slots=True)
class Modifier:
    """Something added to an item: oat milk, an extra shot, a size."""

    id: str
    name: str
    price: int
    group: str = ""  # the name of the group it is chosen from
    required: bool = False  # whether exactly one of the group is chosen with every unit, as a size is


@dataclass(frozen=True, slots=True)
class Item:
    """One sellable variation of a product."""

    id: str
    name: str
    variation: str
    category: str
    price: int
    tax_class: str = "food"
    unit: str = ""  # weighed goods: the unit's name
    modifiers: tuple[Modifier, ...] = ()
    product_id: str = ""  # of the product that it is a variation of
    sku: str = ""
    upc: str = ""
    tracked: bool = False  # whether stock of it is counted
    updated: int = 0  # UTC milliseconds
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Customer:
    """A person who bought something, with everything that must never reach the lake."""

    id: str
    given_name: str
    family_name: str
    email: str
    phone: str
    street: str
    city: str
    region: str
    postal_code: str
    country: str
    card_first6: str
    card_last4: str


@dataclass(frozen=True, slots=True)
class Employee:
    """A person who works there. `wage` is minor units an hour."""

    id: str
    given_name: str
    family_name: str
    email: str
    phone: str
    job_id: str
    job: str
    wage: int


@dataclass(slots=True)
class Shift:
    """A period worked. `breaks` are unpaid minutes; `end` is None while it goes on; instants are UTC milliseconds."""

    id: str
    employee: Employee
    location: Location
    start: int
    end: int | None
    breaks: int = 0
    tips: int = 0  # cash tips declared, minor units
    updated: int = 0
    deleted: bool = False


@dataclass(slots=True)
class Count:
    """The stock of an item at a location: units, possibly below zero; `updated` is UTC milliseconds."""

    quantity: int
    updated: int


class Chosen(NamedTuple):
    """A modifier on a line, `quantity` times per unit of the line."""

    modifier: Modifier
    quantity: int


class Line(NamedTuple):
    """One line of a sale, before any arithmetic."""

    kind: LineKind
    item: Item | None
    name: str
    quantity: int
    unit_price: int
    precision: int = 0
    modifiers: tuple[Chosen, ...] = ()
    tax_class: str = "food"
    note: str = ""


class Discount(NamedTuple):
    """A discount: a rate or an amount, on the whole order or on one line (its index)."""

    name: str
    percent: str = ""
    rate: int = 0
    amount: int = 0
    line: int | None = None


class Tax(NamedTuple):
    """A tax of a location, on the lines whose tax class it covers."""

    name: str
    percent: str
    rate: int
    covers: frozenset[str]
    inclusive: bool = False


class Charge(NamedTuple):
    """A service charge on the order: a rate of the discounted goods, or an amount.

    An apportioned one (a rate) is spread over the goods, before tax: it is part of the lines' totals.
    """

    name: str
    percent: str = ""
    rate: int = 0
    amount: int = 0
    auto_gratuity: bool = False
    taxable: bool = False
    after_tax: bool = False
    apportioned: bool = False


class Payment(NamedTuple):
    """A tender: pays up to `limit`, or whatever is left; `at` another instant than that of closing, UTC milliseconds."""

    type: str
    limit: int | None = None
    at: int | None = None


class Returned(NamedTuple):
    """What came back: `parts` of a source order as (index of its line, quantity), or `lines` with prices of their own.

    `links` are the source's lines that `lines` belong to, by index; -1 for none.
    """

    source: Sale | None
    parts: tuple[tuple[int, int], ...] = ()
    lines: tuple[Line, ...] = ()
    links: tuple[int, ...] = ()
    tip_back: bool = False
    charges_back: bool = False
    reason: str = "Returned goods"
    itemised: bool = True


@dataclass(slots=True)
class Location:
    """A store. `reported_timezone` is what the provider's API says, which a test may make wrong."""

    id: str
    merchant_id: str
    name: str
    timezone: str
    currency: str
    country: str
    city: str
    region: str
    postal_code: str
    taxes: tuple[Tax, ...] = ()
    cash_step: int = 1
    active: bool = True
    opens: int = 7
    hours: float = 12.0
    busy: float = 40.0
    created: str = "2021-03-01T09:00:00Z"
    reported_timezone: str = ""

    def __post_init__(self) -> None:
        self.reported_timezone = self.reported_timezone or self.timezone


class Document(NamedTuple):
    """A record that is not made up but given out as it was taken in: see `documents`."""

    kind: str
    location_id: str
    body: Mapping[str, Any]


@dataclass(slots=True)
class Merchant:
    """A business with an account at the providers."""

    id: str
    handle: str
    name: str
    currency: str
    country: str
    language: str
    cutoff_hour: int = 0
    locations: list[Location] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    provider: str = ""  # where its account is
    tenant: str = ""  # the business that it belongs to; several accounts can be of one
    refunds_on_source: bool = False  # whether the provider keeps a refund on the order that was sold
    counts_when: CountsWhen = "paid"
    untold: tuple[Quirk, ...] = ()
    customers: list[Customer] = field(default_factory=list)
    employees: list[Employee] = field(default_factory=list)
    shifts: list[Shift] = field(default_factory=list)
    counts: dict[tuple[str, str], Count] = field(default_factory=dict)  # by location id and item id
    gratuity_is_tip: bool = False  # whether an automatic gratuity is no revenue but a tip
    id_style: IdStyle = "token"  # what the provider's ids look like
    counter: str = "Point of Sale"  # where a sale at the counter says it came from
    online: str = "Online"  # where one that was ordered online says it came from
    goods_by_product: bool = False  # whether a line names its product (`Item.product_id`) instead of its variation
    trade: Trade = "counter"  # how it sells, which is how its past is made up
    published: int = 0  # when the catalog was last published, UTC milliseconds
    documents: list[Document] = field(default_factory=list)


class PricedLine(NamedTuple):
    """A line's figures. `value` is quantity times price with modifiers, taxes included in the price included."""

    line: Line
    quantity: int
    variation_total: int
    modifier_totals: tuple[int, ...]
    value: int
    discounts: tuple[tuple[int, int], ...]  # (index of the discount, amount)
    taxes: tuple[tuple[int, int], ...]  # (index of the location's tax, amount)
    discount: int
    tax: int
    included: int  # the part of `tax` that `value` already holds
    spread: tuple[tuple[int, int], ...] = ()  # (index of an apportioned charge, the line's part of it)

    @property
    def charged(self) -> int:
        """The line's part of apportioned charges."""
        return sum(amount for _, amount in self.spread)

    @property
    def total(self) -> int:
        """What the customer owes for the line, apportioned charges included."""
        return self.value - self.discount + self.tax - self.included + self.charged

    @property
    def gross(self) -> int:
        """The line before discounts and without any tax."""
        return self.value - self.included


class PricedCharge(NamedTuple):
    """A service charge's figures; `applied` holds taxes that are included in the price."""

    charge: Charge
    applied: int
    taxes: tuple[tuple[int, int], ...]
    tax: int
    included: int

    @property
    def total(self) -> int:
        """What the customer owes for the charge."""
        return self.applied + self.tax - self.included

    @property
    def beside(self) -> int:
        """What the charge adds to the order's total: nothing, when the lines already carry it."""
        return 0 if self.charge.apportioned else self.total


class PricedTender(NamedTuple):
    """What was paid, tip included; `at` another instant than that of closing, UTC milliseconds."""

    type: str
    amount: int
    tip: int
    at: int | None = None


class PricedReturn(NamedTuple):
    """What came back from one source order, in positive amounts."""

    returned: Returned
    lines: tuple[tuple[int, PricedLine], ...]  # (index of the source's line or -1, figures)
    charges: tuple[tuple[int, PricedCharge], ...]  # (index of the source's charge, figures)
    tip: int
    rounding: int

    @property
    def total(self) -> int:
        """What the customer gets back."""
        return (
            sum(line.total for _, line in self.lines)
            + sum(charge.beside for _, charge in self.charges)
            + self.tip
            + self.rounding
        )


class Priced(NamedTuple):
    """An order's figures. `total` is of its sales alone; what came back is in `returns`."""

    lines: tuple[PricedLine, ...]
    charges: tuple[PricedCharge, ...]
    returns: tuple[PricedReturn, ...]
    tenders: tuple[PricedTender, ...]
    tip: int
    rounding: int
    total: int
    refund: int


@dataclass(slots=True, eq=False)
class Sale:
    """One order as it really happened: a sale, a return, an exchange, or a ticket that was opened or cancelled.

    `revision` counts changes; whatever is derived from a sale is kept only for the revision it was derived from.

    Args:
        presentment: the currency that the buyer saw, and how many millionths of it one of the store's is; None: the store's own.
        test: whether it is a trial of the till: no sale at all.
        document: not made up: what is given out as it is; nothing else is known of it.
        earlier: what was on it before each edit, oldest first, and when that was (UTC milliseconds).
        arrived: rung up offline: when the provider learnt of it, UTC milliseconds.
        deleted: emptied by a merge, where providers keep such orders and say so.

    """

    id: str
    location: Location
    created: int
    updated: int
    closed: int | None
    state: State = "COMPLETED"
    _: KW_ONLY
    lines: tuple[Line, ...] = ()
    discounts: tuple[Discount, ...] = ()
    charges: tuple[Charge, ...] = ()
    payments: tuple[Payment, ...] = ()
    returns: tuple[Returned, ...] = ()
    tip_rate: int = 0
    tip: int = 0
    source: str = ""
    ticket: str = ""
    reference: str = ""
    version: int = 0
    corrupt: str = ""
    customer: Customer | None = None
    presentment: tuple[str, int] | None = None
    test: bool = False
    document: Mapping[str, Any] | None = None
    earlier: tuple[tuple[int, tuple[Line, ...]], ...] = ()
    arrived: int | None = None
    deleted: bool = False
    revision: int = 0
    priced: Priced | None = None

    @property
    def is_paid(self) -> bool:
        """Whether it is paid in full: every order that is closed, and an open one of which every tender was paid."""
        ahead = bool(self.payments) and all(payment.at is not None for payment in self.payments)
        return self.state == "COMPLETED" or (self.state == "OPEN" and ahead)
