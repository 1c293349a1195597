"""Orders as Shopify's Admin API has them, made from the world's sales.

Every amount comes from `pricing.price`. An order's total holds its goods, taxes, shipping (the world's charges) and tips, and no
cash rounding, which Shopify tells apart. What was given back stays on the order that was sold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flux_sandbox.model import Line, PricedLine, Returned, Sale
from flux_sandbox.pricing import price
from flux_sandbox.shopify import documents as given
from flux_sandbox.shopify.agreements import AgreementWriter
from flux_sandbox.shopify.ids import Json, Money, gid, legacy, stamp
from flux_sandbox.shopify.people import address, customer
from flux_sandbox.shopify.refunds import PaymentWriter, RefundWriter
from flux_sandbox.shopify.totals import tax_lines, totals_of
from flux_sandbox.shopify.values import Call, Nodes, Parts

if TYPE_CHECKING:
    from flux_sandbox.model import Merchant, Priced
    from flux_sandbox.shopify.catalog import Catalog
    from flux_sandbox.world import World

_CUSTOM = "Custom sale"


class OrderWriter:
    """Writes the orders of one shop."""

    def __init__(self, world: World, merchant: Merchant, catalog: Catalog) -> None:
        self._world = world
        self._merchant = merchant
        self._catalog = catalog
        #: The orders that were edited: the world does not keep it.
        self.edited: set[str] = set()

    def write(self, sale: Sale, number: int) -> Json:
        """Return an order; `number` counts the shop's orders from 1."""
        if sale.document is not None:
            return given.order(sale.document)
        money = Money(sale.location.currency, sale.presentment)

        def totals(_: Json) -> Json:
            return totals_of(sale, price(sale), self._world.refunds_of(sale), money)

        def rest(order: Json) -> Json:
            return self._rest(sale, order, money)

        order: Json = Parts(self._head(sale, number, money), (totals, rest))
        if sale.corrupt:
            _damage(order, sale.corrupt)
        return order

    def _rest(self, sale: Sale, order: Json, money: Money) -> Json:
        """Return an order's lines and what was paid, sent and given back."""
        figures = price(sale)
        applications = _applications(sale, money)
        lines = [self._line(sale, index, line, applications, money) for index, line in enumerate(figures.lines)]
        if figures.tip:
            lines.append(self._tip(sale, len(lines), figures.tip, money))
        shipping = [self._shipping(sale, index, figures, money) for index in range(len(figures.charges))]
        payments = PaymentWriter(money, self._world.now_ms())
        paid = payments.paid(order, sale, self._world.payments_of(sale))
        refunds, returns, transactions = [], [], list(paid)
        given: list[tuple[Sale, Json]] = []
        writer = RefundWriter(money, order, lines, shipping, self._catalog.location(sale.location))
        for one in self._world.refunds_of(sale):
            gone = price(one).returns[0]
            money_back = payments.given_back(order, self._world.payments_of(one), gone.rounding, paid)
            refund, made = writer.write(one, money_back)
            refunds.append(refund)
            given.append((one, refund))
            transactions += money_back
            if made is not None:
                returns.append(made)
            for index, line in gone.lines:
                if index >= 0:
                    lines[index]["currentQuantity"] -= line.quantity
                    lines[index]["refundableQuantity"] -= line.quantity
            if gone.tip:
                lines[-1]["currentQuantity"] = lines[-1]["refundableQuantity"] = 0
        if sale.state == "CANCELED":
            everything = _cancellation(sale)
            refund = writer.cancelled(everything)
            refunds.append(refund)
            given.append((everything, refund))
        agreements = AgreementWriter(sale, order, lines, shipping, money).write(given)
        return {
            "agreements": Nodes(agreements),
            "lineItems": Nodes(lines),
            "shippingLines": Nodes(shipping),
            "shippingLine": shipping[0] if shipping else None,
            "discountApplications": Nodes(applications),
            "refunds": refunds,
            "returns": Nodes(returns),
            "transactions": transactions,
            "transactionsCount": {"count": len(transactions), "precision": "EXACT"},
            "paymentGatewayNames": list(dict.fromkeys(one["gateway"] for one in paid)),
            **self._fulfillments(sale, order, lines),
        }

    def _head(self, sale: Sale, number: int, money: Money) -> Json:
        id_ = legacy("Order", sale.id)
        # What is ordered online belongs to the shop's first location, and is sent from there.
        counter = sale.source != self._merchant.online or sale.location is not self._merchant.locations[0]
        arrived = sale.created if sale.arrived is None else sale.arrived
        closed = stamp(max(arrived, sale.closed)) if sale.closed is not None else None
        cancelled = sale.state == "CANCELED"
        person = sale.customer
        where = address(person) if person else None
        location = self._catalog.location(sale.location)
        return {
            "__typename": "Order",
            "id": gid("Order", id_),
            "legacyResourceId": str(id_),
            "name": f"#{1000 + number}",
            "number": number,
            "confirmationNumber": f"{id_ % 36**6:09X}",
            "confirmed": True,
            "closed": closed is not None,
            "closedAt": closed,
            "cancelReason": "CUSTOMER" if cancelled else None,
            "cancelledAt": closed if cancelled else None,
            "createdAt": stamp(arrived),
            "processedAt": stamp(sale.created),
            "updatedAt": stamp(max(arrived, sale.updated)),
            "currencyCode": money.currency,
            "presentmentCurrencyCode": money.shown,
            "taxesIncluded": any(tax.inclusive for tax in sale.location.taxes),
            "dutiesIncluded": False,
            "taxExempt": False,
            "estimatedTaxes": False,
            "displayFulfillmentStatus": "FULFILLED" if sale.state == "COMPLETED" else "UNFULFILLED",
            "edited": sale.id in self.edited,
            "test": sale.test,
            "sourceName": "pos" if counter else "web",
            "sourceIdentifier": f"{legacy('Location', sale.location.id)}-1-{number}" if counter else None,
            "registeredSourceUrl": None,
            "retailLocation": location if counter else None,
            "physicalLocation": location if counter else None,
            "staffMember": None,
            "app": None,
            "channelInformation": None,
            "publication": None,
            "note": sale.ticket or None,
            "poNumber": None,
            "tags": [],
            "customAttributes": [{"key": "reference", "value": sale.reference}] if sale.reference else [],
            "customer": customer(person, self._merchant) if person else None,
            "email": person.email if person else None,
            "phone": person.phone if person else None,
            "billingAddress": where,
            "shippingAddress": where if not counter else None,
            "displayAddress": where,
            "billingAddressMatchesShippingAddress": not counter,
            "clientIp": f"203.0.113.{id_ % 250 + 1}" if not counter else None,
            "customerAcceptsMarketing": False,
            "customerLocale": self._merchant.language,
            "discountCode": next((_code(one.name) for one in sale.discounts if one.line is None), None),
            "discountCodes": [_code(one.name) for one in sale.discounts if one.line is None],
            "merchantEditable": True,
            "merchantEditableErrors": [],
            "statusPageUrl": f"https://{self._merchant.handle}.myshopify.com/orders/{id_}",
            "additionalFees": [],
            "alerts": [],
            "disputes": [],
            "metafield": None,
            "metafields": Nodes([]),
            "events": Nodes([]),
            "requiresShipping": not counter,
            "cartToken": None,
            "checkoutToken": None,
        }

    def _line(self, sale: Sale, index: int, line: PricedLine, applications: Sequence[Json], money: Money) -> Json:
        sold = line.line
        number = legacy("LineItem", f"{sale.id}|{index}")
        unit = sold.unit_price + sum(chosen.modifier.price * chosen.quantity for chosen in sold.modifiers)
        own = sum(amount for which, amount in line.discounts if sale.discounts[which].line is not None)
        item = sold.item
        variant = self._catalog.variant(item) if item else None
        title = sold.name or _CUSTOM
        cancelled = sale.state == "CANCELED"
        every, mine = money.bag(line.value - line.discount), money.bag(line.value - own)
        shown = item.variation if item and item.variation not in ("", "Regular", "Default Title") else None
        return {
            "id": gid("LineItem", number),
            "name": f"{title} - {shown}" if shown else title,
            "title": title,
            "variantTitle": shown,
            "vendor": self._merchant.name if item else None,
            "sku": (item.sku or None) if item else None,
            "quantity": line.quantity,
            "currentQuantity": 0 if cancelled else line.quantity,
            "refundableQuantity": 0 if cancelled else line.quantity,
            "unfulfilledQuantity": 0 if sale.state == "COMPLETED" else line.quantity,
            "nonFulfillableQuantity": 0,
            "isGiftCard": sold.kind == "GIFT_CARD",
            "requiresShipping": item is not None,
            "restockable": item is not None,
            "merchantEditable": True,
            "taxable": bool(line.taxes),
            "product": variant["product"] if variant else None,
            "variant": variant,
            "originalUnitPriceSet": money.bag(unit),
            "originalTotalSet": money.bag(line.value),
            "discountedTotalSet": Call(lambda args: every if args.get("withCodeDiscounts") else mine),
            "discountedUnitPriceSet": money.bag((line.value - own) // max(1, line.quantity)),
            "discountedUnitPriceAfterAllDiscountsSet": money.bag((line.value - line.discount) // max(1, line.quantity)),
            "priceAfterAllDiscountsBeforeTaxesSet": money.bag(line.value - line.discount - line.included),
            "totalDiscountSet": money.bag(own),
            "discountAllocations": [
                {
                    "allocatedAmount": money.of(amount),
                    "allocatedAmountSet": money.bag(amount),
                    "discountApplication": applications[which],
                }
                for which, amount in line.discounts
                if amount
            ],
            "taxLines": tax_lines(sale, line.taxes, money),
            "customAttributes": [
                {"key": chosen.modifier.group or "Option", "value": chosen.modifier.name} for chosen in sold.modifiers
            ],
            "duties": [],
            "image": None,
            "lineItemGroup": None,
            "sellingPlan": None,
            "staffMember": None,
            "contract": None,
        }

    def _tip(self, sale: Sale, index: int, amount: int, money: Money) -> Json:
        """Return the line that a tip is: no goods, no taxes, no part of the subtotal."""
        line = Line("CUSTOM_AMOUNT", None, "Tip", 1, amount)
        priced = PricedLine(line, 1, amount, (), amount, (), (), 0, 0, 0)
        return {**self._line(sale, index, priced, (), money), "requiresShipping": False, "restockable": False}

    def _shipping(self, sale: Sale, index: int, figures: Priced, money: Money) -> Json:
        charge = figures.charges[index]
        applied = money.bag(charge.applied)
        return {
            "id": gid("ShippingLine", legacy("ShippingLine", f"{sale.id}|{index}")),
            "title": charge.charge.name,
            "code": charge.charge.name,
            "source": "shopify",
            "custom": False,
            "isRemoved": False,
            "carrierIdentifier": None,
            "deliveryCategory": None,
            "phone": None,
            "shippingRateHandle": None,
            "discountAllocations": [],
            "originalPriceSet": applied,
            "discountedPriceSet": applied,
            "currentDiscountedPriceSet": applied,
            "taxLines": tax_lines(sale, charge.taxes, money),
        }

    def _fulfillments(self, sale: Sale, order: Json, lines: Sequence[Json]) -> Json:
        done, cancelled = sale.state == "COMPLETED", sale.state == "CANCELED"
        if sale.state == "OPEN" or not lines:
            return {"fulfillments": [], "fulfillmentsCount": _count(0)}
        parts = [(sale.location, list(lines))]
        others = [one for one in self._merchant.locations if one.id != sale.location.id and one.active]
        web = order["sourceName"] == "web"
        if web and done and others and len(lines) > 1 and legacy("Order", sale.id) % 4 == 0:
            # What the first location did not have is sent from another one.
            parts = [(sale.location, list(lines[:-1])), (others[0], [lines[-1]])]
        found = []
        for index, (location, part) in enumerate(parts):
            number = legacy("Fulfillment", f"{sale.id}|{index}")
            made: list[Json] = [
                {
                    "id": gid("FulfillmentLineItem", legacy("FulfillmentLineItem", line["id"])),
                    "lineItem": line,
                    "quantity": line["quantity"],
                    "originalTotalSet": line["originalTotalSet"],
                    "discountedTotalSet": line["originalTotalSet"],
                }
                for line in part
            ]
            found.append(
                {
                    "id": gid("Fulfillment", number),
                    "legacyResourceId": str(number),
                    "name": f"{order['name']}-F{index + 1}",
                    "createdAt": order["closedAt"],
                    "updatedAt": order["closedAt"],
                    "deliveredAt": None,
                    "estimatedDeliveryAt": None,
                    "inTransitAt": None,
                    "displayStatus": "CANCELED" if cancelled else "FULFILLED",
                    "status": "CANCELLED" if cancelled else "SUCCESS",
                    "fulfillmentLineItems": Nodes(made),
                    "location": self._catalog.location(location),
                    "order": order,
                    "requiresShipping": web,
                    "service": None,
                    "totalQuantity": sum(line["quantity"] for line in part),
                    "trackingInfo": [],
                }
            )
        return {"fulfillments": found, "fulfillmentsCount": _count(len(found))}


def _cancellation(sale: Sale) -> Sale:
    """Return what cancelling an order takes back: everything; nobody paid for it."""
    at = sale.closed if sale.closed is not None else sale.updated
    parts = tuple((index, line.quantity) for index, line in enumerate(sale.lines))
    returned = Returned(sale, parts, tip_back=True, charges_back=True, reason="Cancelled")
    return Sale(f"{sale.id}|cancelled", sale.location, at, sale.updated, at, returns=(returned,))


def _count(number: int) -> Json:
    return {"count": number, "precision": "EXACT"}


def _code(name: str) -> str:
    return "".join(one for one in name.upper() if one.isalnum())


def _applications(sale: Sale, money: Money) -> list[Json]:
    found: list[Json] = []
    for index, one in enumerate(sale.discounts):
        value: Mapping[str, Any] = (
            {"__typename": "MoneyV2", **money.of(one.amount)}
            if one.amount
            else {"__typename": "PricingPercentageValue", "percentage": float(one.percent)}
        )
        common = {"allocationMethod": "ACROSS", "index": index, "targetType": "LINE_ITEM", "value": value}
        if one.line is None:
            kind: Json = {"__typename": "DiscountCodeApplication", "code": _code(one.name), "targetSelection": "ALL"}
        else:
            kind = {"__typename": "ManualDiscountApplication", "title": one.name, "description": None}
            kind["targetSelection"] = "EXPLICIT"
        found.append({**common, **kind})
    return found


def _damage(order: Json, kind: str) -> None:
    """Make an order one that no reader can use: see `world.MALFORMED`."""
    if kind == "timestamp":
        order["processedAt"] = order["createdAt"] = "yesterday"
        return
    for name in ("totalPriceSet", "currentTotalPriceSet"):
        bag = {which: dict(money) for which, money in order[name].items()}
        for money in bag.values():
            if kind == "types":
                money["amount"] = "twelve"
            elif kind == "currency":
                money["currencyCode"] = "XXQ"
            else:
                money["amount"] = "99999999.99"
        order[name] = bag
    if kind == "currency":
        order["currencyCode"] = "XXQ"
