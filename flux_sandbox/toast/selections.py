"""The lines of a sale as Toast's menu item selections, with modifiers, discounts and taxes.

Facts: devguide, "Order object summary": a selection's `preDiscountPrice`, `price` and `tax` are of the whole quantity and
hold its modifiers; `price` is after discounts, the share of check-level ones included, and never holds tax. A modifier's
quantity is its parent's; a double one is listed twice ("Specifying modifiers").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_sandbox.toast.adjustments import applied_discount, applied_taxes, refunded_line
from flux_sandbox.toast.ids import item_multi_location_id, multi_location_id
from flux_sandbox.toast.order_context import OrderContext, configured, reference, unit_of_measure
from flux_sandbox.toast.values import FIXED, dollars, quantity, stamp

if TYPE_CHECKING:
    from flux_sandbox.model import Chosen, Item, PricedLine, Sale

Json = dict[str, Any]


def _item(context: OrderContext, item: Item) -> Json:
    return {
        "guid": context.menu_guid("item", item.id),
        "entityType": "MenuItem",
        "multiLocationId": item_multi_location_id(item),
        "externalId": None,
    }


def _selection(context: OrderContext, guid_: str, **members: Any) -> Json:
    """Return a selection with what all of them have; later members replace earlier ones."""
    sale = context.sale
    return {
        **FIXED["selection"],
        "guid": guid_,
        "seatNumber": -1,
        "fulfillmentStatus": "NEW" if sale.state == "OPEN" else "SENT",
        "createdDate": stamp(sale.created),
        "modifiedDate": stamp(sale.updated),
        **context.voiding(),
        **members,
    }


def _modifier(context: OrderContext, line: int, n: int, chosen: Chosen, amount: int, count: Any, group: str) -> Json:
    modifier = chosen.modifier
    return _selection(
        context,
        context.made("modifier", line, n),
        item={
            "guid": context.menu_guid("modifier", modifier.id),
            "entityType": "MenuItem",
            "multiLocationId": multi_location_id(modifier.id),
            "externalId": None,
        },
        optionGroup=reference("MenuOptionGroup", configured(context.merchant, "option group", group)),
        displayName=modifier.name,
        quantity=count,
        receiptLinePrice=dollars(modifier.price),
        preDiscountPrice=dollars(amount),
        price=dollars(amount),
        tax=dollars(0),
        taxInclusion="INHERITED",
        optionGroupPricingMode="ADJUSTS_PRICE" if modifier.price else "INCLUDED",
    )


def modifier_group(item: Item, name: str) -> str:
    """Return the name of the group that a modifier is chosen from."""
    return name or f"{item.category} options"


def _modifiers(context: OrderContext, index: int, figures: PricedLine, count: Any) -> list[Json]:
    line = figures.line
    found: list[Json] = []
    n = 0
    for chosen, total in zip(line.modifiers, figures.modifier_totals, strict=True):
        group = modifier_group(line.item, chosen.modifier.group) if line.item else "Options"
        part, rest = divmod(total, chosen.quantity)
        for copy in range(chosen.quantity):
            amount = part + (rest if not copy else 0)
            found.append(_modifier(context, index, n, chosen, amount, count, group))
            n += 1
    if len(line.modifiers) > 1 and context.dice(f"nested{index}") < 500:
        # The last one belongs to the first: an extra of an extra. What it costs is in its parent's amounts too.
        nested, amount = found.pop(), figures.modifier_totals[-1] // line.modifiers[-1].quantity
        parent = found[0]
        parent["modifiers"] = [nested]
        whole = dollars(_first_amount(figures) + amount)
        parent["preDiscountPrice"] = parent["price"] = whole
    return found


def _first_amount(figures: PricedLine) -> int:
    part, rest = divmod(figures.modifier_totals[0], figures.line.modifiers[0].quantity)
    return part + rest


def selection(context: OrderContext, index: int, figures: PricedLine, refunds: Sequence[Sale], dining: Json) -> Json:
    """Return one line of the sale as a top-level selection."""
    line, item = figures.line, figures.line.item
    count = quantity(figures.quantity, line.precision, whole=context.dice(f"quantity{index}") < 500)
    gift = line.kind == "GIFT_CARD"
    inclusive = any(context.location.taxes[i].inclusive for i, _ in figures.taxes)
    own = [(i, amount) for i, amount in figures.discounts if context.sale.discounts[i].line is not None]
    net = figures.gross - figures.discount
    whole = context.dice(f"whole{index}") < 500
    return _selection(
        context,
        context.made("selection", index),
        item=_item(context, item) if item else None,
        itemGroup=reference("MenuGroup", configured(context.merchant, "menu group", item.category)) if item else None,
        salesCategory=reference("SalesCategory", configured(context.merchant, "sales category", item.category))
        if item
        else None,
        displayName=line.name or ("Gift Card" if gift else None),
        selectionType="TOAST_CARD_SELL" if gift else "NONE" if item else "OPEN_ITEM",
        deferred=gift,
        quantity=count,
        unitOfMeasure=unit_of_measure(item.unit) if item else "NONE",
        receiptLinePrice=dollars(line.unit_price, whole=whole),
        preDiscountPrice=dollars(figures.gross, whole=whole),
        price=dollars(net, whole=whole),
        tax=dollars(figures.tax),
        taxInclusion="INCLUDED" if inclusive else "NOT_INCLUDED",
        appliedDiscounts=[applied_discount(context, i, amount, "selection", index) for i, amount in own],
        appliedTaxes=applied_taxes(context, figures.taxes, "selection", index),
        modifiers=_modifiers(context, index, figures, count),
        refundDetails=refunded_line(context, index, refunds),
        diningOption=dining,
        plu=(item.upc or None) if item else None,
        # A state of the kitchen that no list of Toast's had until it was there (enums are open since 2026-07-20).
        fulfillmentStatus="NEW" if context.sale.state == "OPEN" else _status(context.dice(f"status{index}")),
    )


def _status(dice: int) -> str:
    return "SENT" if dice < 700 else "READY" if dice < 985 else "PLATED"


def voided_selection(context: OrderContext, item: Item, dining: Json) -> Json:
    """Return something that was ordered by mistake and voided: its price is still printed, and counts nowhere."""
    at = context.sale.created + 30_000
    return _selection(
        context,
        context.made("mistake"),
        item=_item(context, item),
        itemGroup=reference("MenuGroup", configured(context.merchant, "menu group", item.category)),
        displayName=item.name,
        quantity=quantity(1, 0),
        receiptLinePrice=dollars(item.price),
        preDiscountPrice=dollars(item.price),
        price=dollars(item.price),
        tax=dollars(0),
        taxInclusion="NOT_INCLUDED",
        diningOption=dining,
        voided=True,
        voidDate=stamp(at),
        voidBusinessDate=context.day(at),
        voidReason=reference("VoidReason", configured(context.merchant, "void reason", "Server error")),
    )
