"""What changes in the world beside orders: stores, the catalogue, stock, who is at work, who is whose customer."""

from __future__ import annotations

from dataclasses import replace

from flux_pipelines.domain.errors import ConfigurationError
from flux_sandbox.events import Kind
from flux_sandbox.ids import code, made, number
from flux_sandbox.model import Count, Customer, Item, Location, Merchant, Sale, Shift
from flux_sandbox.order_index import Book
from flux_sandbox.world_state import WorldState


class Upkeep(WorldState):
    """The world, and what can be changed in it beside orders."""

    # Stores

    def open_location(self, merchant: Merchant, name: str) -> Location:
        """Let a merchant open another store, like its first one."""
        self._made += 1
        id_ = made(merchant.id_style, self.options.seed, merchant.handle, name, self._made)
        if merchant.id_style == "token":
            id_ = "L" + code(self.options.seed, merchant.handle, name, self._made, length=12)
        location = replace(merchant.locations[0], id=id_, name=name, active=True)
        merchant.locations.append(location)
        self.locations[id_] = location
        self.books[id_] = Book()
        self._tell_of("location_opened", location)
        return location

    def report_timezone(self, location_id: str, timezone: str) -> Location:
        """Let the provider say that a store is in this time zone, right or wrong."""
        location = self.location(location_id)
        location.reported_timezone = timezone
        self._tell_of("location_changed", location)
        return location

    # The catalogue

    def withhold(self, merchant: Merchant, *, back: bool) -> None:
        """Let every answer be that nothing was ever sold or worked at a merchant's, or (`back`) what it really is."""
        own = {merchant.id, *(location.id for location in merchant.locations)}
        self.withheld = self.withheld - own if back else self.withheld | own
        if back:
            merchant.shifts = self.shifts_withheld.pop(merchant.id, merchant.shifts)
        elif merchant.id not in self.shifts_withheld:
            self.shifts_withheld[merchant.id], merchant.shifts = merchant.shifts, []

    def item(self, merchant: Merchant, name: str) -> Item:
        """Return an item of a merchant by its id or its name, deleted ones too.

        Raises:
            ConfigurationError: there is none.

        """
        for item in merchant.items:
            if name in (item.id, item.name, f"{item.name} {item.variation}".strip()):
                return item
        raise ConfigurationError(
            f"{merchant.name} has no item {name!r}", next_step="GET /sandbox/truth/products lists them."
        )

    def _now_after(self, instant: int) -> int:
        return max(self.now_ms(), instant + 1)

    def _replace(self, merchant: Merchant, old: Item, new: Item, kind: Kind) -> Item:
        place = next(i for i, item in enumerate(merchant.items) if item is old)
        merchant.items[place] = new
        merchant.published = max(merchant.published, new.updated)
        self._tell_of(kind, merchant.locations[0], item=new)
        return new

    def change_item(
        self, merchant: Merchant, name: str, *, price: int | None = None, renamed: str | None = None
    ) -> Item:
        """Change an item's price (minor units) or name, now; what was sold before keeps what it was sold as.

        A name is the product's: its other variations have it too.
        """
        old = self.item(merchant, name)
        if renamed:
            for one in [i for i in merchant.items if i.product_id == old.product_id and i is not old]:
                other = replace(one, name=renamed, updated=self._now_after(one.updated))
                self._replace(merchant, one, other, "item_changed")
        new = replace(
            old,
            price=old.price if price is None else price,
            name=renamed or old.name,
            updated=self._now_after(old.updated),
        )
        return self._replace(merchant, old, new, "item_changed")

    def delete_item(self, merchant: Merchant, name: str) -> Item:
        """Take an item out of the catalogue, now."""
        old = self.item(merchant, name)
        new = replace(old, deleted=True, updated=self._now_after(old.updated))
        return self._replace(merchant, old, new, "item_deleted")

    def add_item(
        self, merchant: Merchant, name: str, price: int, *, category: str = "", variation: str = "", sku: str = ""
    ) -> Item:
        """Put a new item into the catalogue, now."""
        self._made += 1
        parts = (self.options.seed, merchant.handle, name, variation, self._made)
        style = merchant.id_style
        id_ = code(*parts) if style == "token" else made(style, "item", *parts)
        product = code("item", *parts) if style == "token" else number("product", *parts)
        item = Item(
            id_,
            name,
            variation,
            category or merchant.items[0].category,
            price,
            product_id=product,
            sku=sku,
            updated=self.now_ms(),
        )
        merchant.items.append(item)
        merchant.published = max(merchant.published, item.updated)
        self._tell_of("item_created", merchant.locations[0], item=item)
        return item

    def publish(self, merchant: Merchant) -> int:
        """Publish the catalogue once more, as it is; returns when, in UTC milliseconds."""
        merchant.published = self._now_after(merchant.published)
        self._tell_of("catalogue_published", merchant.locations[0])
        return merchant.published

    # Stock

    def set_stock(self, location_id: str, name: str, quantity: int) -> Count:
        """Count an item's stock at a store: this many units there are now."""
        location = self.location(location_id)
        item = self.item(self.merchants[location.merchant_id], name)
        if not item.tracked:
            raise ConfigurationError(f"nobody counts the stock of {item.name!r}", next_step="Pick a counted item.")
        return self._count(location, item, quantity)

    def _count(self, location: Location, item: Item, quantity: int) -> Count:
        counts = self.merchants[location.merchant_id].counts
        before = counts.get((location.id, item.id), Count(0, 0))
        count = counts[(location.id, item.id)] = Count(quantity, self._now_after(before.updated))
        self._tell_of("stock_changed", location, item=item, count=count, count_before=before.quantity)
        return count

    def _take(self, sale: Sale) -> None:
        """Let the stock go down by what was sold."""
        counts = self.owner(sale).counts
        for line in sale.lines:
            if line.item is not None and (sale.location.id, line.item.id) in counts and not line.precision:
                left = counts[(sale.location.id, line.item.id)].quantity - line.quantity
                self._count(sale.location, line.item, left)

    # Who works when

    def shift(self, shift_id: str) -> Shift:
        """Return a shift by its id.

        Raises:
            ConfigurationError: there is none.

        """
        for merchant in self.merchants.values():
            for shift in merchant.shifts:
                if shift.id == shift_id:
                    return shift
        raise ConfigurationError(f"the sandbox has no shift {shift_id!r}", next_step="GET /sandbox/truth/labor.")

    def clock_in(self, location_id: str, employee_id: str | None = None) -> Shift:
        """Let somebody begin to work at a store, now; by default the merchant's first employee."""
        location = self.location(location_id)
        merchant = self.merchants[location.merchant_id]
        for employee in merchant.employees:
            if employee_id in (None, employee.id):
                break
        else:
            raise ConfigurationError(
                f"{merchant.name} has no employee {employee_id!r}", next_step="GET /sandbox/truth/labor."
            )
        now = self.now_ms()
        shift = Shift(self.new_id("shift", merchant), employee, location, now, None, updated=now)
        merchant.shifts.append(shift)
        return self._shift_changed(shift)

    def clock_out(self, shift_id: str, *, breaks: int = 0, tips: int = 0) -> Shift:
        """Let somebody end their work, now; unpaid minutes and cash tips (minor units) as declared."""
        shift = self.shift(shift_id)
        if shift.end is not None or shift.deleted:
            raise ConfigurationError(f"the shift {shift_id!r} is not going on", next_step="Pick one that is.")
        shift.end, shift.breaks, shift.tips = max(self.now_ms(), shift.start + 1), breaks, tips
        shift.updated = self._now_after(shift.updated)
        return self._shift_changed(shift)

    def edit_shift(
        self,
        shift_id: str,
        *,
        start: int | None = None,
        end: int | None = None,
        breaks: int | None = None,
        deleted: bool = False,
    ) -> Shift:
        """Correct a shift now, however long ago it was, or delete it; instants are UTC milliseconds."""
        shift = self.shift(shift_id)
        begins = shift.start if start is None else start
        ends = shift.end if end is None else end
        if ends is not None and ends < begins:
            raise ConfigurationError(f"the shift {shift_id!r} would end before it begins")
        shift.start, shift.end = begins, ends
        shift.breaks = shift.breaks if breaks is None else breaks
        shift.deleted = shift.deleted or deleted
        shift.updated = self._now_after(shift.updated)
        return self._shift_changed(shift)

    def _shift_changed(self, shift: Shift) -> Shift:
        self._tell_of("shift_changed", shift.location, shift=shift)
        return shift

    # People and the app

    def customer(self, merchant: Merchant, name: str) -> Customer:
        """Return a customer of a merchant by id or e-mail address.

        Raises:
            ConfigurationError: there is none.

        """
        for customer in merchant.customers:
            if name in (customer.id, customer.email):
                return customer
        raise ConfigurationError(f"{merchant.name} has no such customer", next_step="GET /sandbox/customers.")

    def set_customer(self, order_id: str, name: str | None) -> Sale:
        """Say now whose order it is; nobody's, without a name."""
        sale = self.sale(order_id)
        sale.customer = self.customer(self.owner(sale), name) if name else None
        self.change(sale)
        return self._tell("edited", sale)

    def ask_for_erasure(self, merchant: Merchant, name: str) -> Customer:
        """Let a customer ask to be forgotten: providers tell their apps."""
        customer = self.customer(merchant, name)
        self._tell_of("erasure_requested", merchant.locations[0], customer=customer)
        return customer

    def uninstall(self, merchant: Merchant) -> None:
        """Let a merchant remove the app: its provider ends the authorisation and says so."""
        self._tell_of("uninstalled", merchant.locations[0])
