"""Shopify's webhooks: the signature over the body, and what an event makes stale.

What an event is (topic, shop, id, time) is in its headers; its body is the object in the shape of the REST API, as it was when
it happened. Deliveries come in any order, so a body says what to look at, never what is true now.

The headers are not signed: whoever has one body with its signature can send it as any topic of any shop. For most topics
that makes dates be read again. Of those that destroy (`DESTROYING`) the body must itself be of that shop and topic.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from flux_pipelines.domain.decoding import decode, decoder
from flux_pipelines.domain.errors import ConfigurationError, WebhookRefusedError
from flux_pipelines.providers.base import (
    Erasure,
    Invalidation,
    Source,
    WebhookContext,
    WebhookEvent,
    WebhookRequest,
)

SIGNATURE_HEADER = "x-shopify-hmac-sha256"
#: Topics after which something is forgotten, taken out of the books or disconnected.
DESTROYING = frozenset({"app/uninstalled", "customers/redact", "orders/delete", "shop/redact"})
_ASKED_FOR = (
    "a person has to answer it: of a customer nothing is stored but pseudonyms and what stands in texts, unless the "
    "connection keeps personal data"
)


class _Body(msgspec.Struct):
    """The members of an order, refund, transaction, order edit or privacy request that name orders and people."""

    id: int | None = None
    order_id: int | None = None
    order_edit: _OrderOf | None = None
    customer: msgspec.Raw = msgspec.Raw()
    customer_id: int | str | None = None
    customer_email: str | None = None
    customer_phone: str | None = None
    orders_to_redact: list[int] = []
    location_id: int | None = None


class _OrderOf(msgspec.Struct):
    order_id: int | None = None


class _Person(msgspec.Struct):
    id: int | str | None = None
    email: str | None = None
    phone: str | None = None


_decode_body = decoder(_Body)

#: Topics about an order, by how their body names it.
_ITSELF = frozenset({"orders"})
_OF_ORDER = frozenset({"refunds", "order_transactions", "returns", "tender_transactions", "fulfillments"})
_CATALOG = frozenset({"products", "variants", "collections"})
_STOCK = frozenset({"inventory_levels", "inventory_items"})


class ShopifyWebhooks:
    """One app's webhooks (`WebhookSource`).

    Raises:
        ConfigurationError: the signing key is empty: anybody could sign then.

    """

    refused_status = 401

    def __init__(self, context: WebhookContext) -> None:
        if not context.signature_key:
            raise ConfigurationError(
                "Shopify's webhooks are signed with the app's client secret, and there is none",
                next_step="Set it with `flux apps set`.",
            )
        # After the secret is rotated, deliveries may be signed with the old one for up to an hour: both, by a comma.
        keys = [key.strip() for key in context.signature_key.split(",") if key.strip()]
        self._macs = [hmac.new(key.encode(), None, hashlib.sha256) for key in keys]

    def verify(self, request: WebhookRequest) -> None:
        """Prove that Shopify signed this very body.

        Raises:
            WebhookRefusedError: there is no signature or no body, or they do not belong together.

        """
        given = _header(request.headers, "hmac-sha256")
        if not request.body or not given:
            raise WebhookRefusedError("a delivery without a signature or without a body")
        matches = []
        for keyed in self._macs:
            mac = keyed.copy()
            mac.update(request.body)
            matches.append(hmac.compare_digest(base64.b64encode(mac.digest()), given.encode("utf-8", "surrogatepass")))
        if not any(matches):
            raise WebhookRefusedError("the signature is not Shopify's for this body")

    def read(self, request: WebhookRequest) -> list[WebhookEvent]:
        """Read the event's own fields, which are in the headers.

        `X-Shopify-Webhook-Id` is the same for every attempt to deliver the same event. It is not signed either: a body of a
        topic that destroys is one event a day, whatever ids it is sent with. Not for ever: a shop that uninstalls the app
        again says the same words.

        Raises:
            WebhookRefusedError: there is no id, topic or shop, or the body is not JSON; or, of a topic that destroys, it is
                of another shop or topic.

        """
        headers = request.headers
        event_id, topic, shop = (_header(headers, name) for name in ("webhook-id", "topic", "shop-domain"))
        if not event_id or not topic or not shop:
            raise WebhookRefusedError("the delivery is not an event of Shopify (no id, no topic or no shop)")
        try:
            members = decode(request.body, dict[str, msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            raise WebhookRefusedError(f"the body is not an event of Shopify ({problem})") from problem
        at = _instant(_header(headers, "triggered-at"))
        if topic not in DESTROYING:
            return [WebhookEvent(event_id, topic, shop, at)]
        _refuse_foreign(topic, shop, members)
        event_id = f"{hashlib.sha256(request.body).hexdigest()}-{datetime.now(UTC):%Y%m%d}"
        return [WebhookEvent(event_id, topic, shop, at, _request(members) if topic == "customers/redact" else None)]

    def affected(self, events: Sequence[tuple[str, bytes]], source: Source) -> list[Invalidation]:
        """Say what each event makes stale. Orders are looked up together: a body may be older than what is true.

        Those that are said to be deleted too: one that Shopify still gives is not.
        """
        subjects = [_subject(topic, body) for topic, body in events]
        gone = {one for subject in subjects if isinstance(subject, Invalidation) for one in subject.deleted}
        wanted = sorted({subject for subject in subjects if isinstance(subject, str)} | gone)
        found = source.orders(wanted) if wanted else []
        headers = {order.header.order_id: order.header for order in found if order.header is not None}

        def touched(order_id: str) -> Invalidation:
            header = headers.get(order_id)
            if header is None:
                return Invalidation(nothing=f"Shopify does not give the order {order_id}")
            return Invalidation(frozenset({(header.location_id, header.created_at)}))

        return [
            touched(subject)
            if isinstance(subject, str)
            else touched(next(iter(subject.deleted)))
            if subject.deleted & headers.keys()
            else subject
            for subject in subjects
        ]


def _subject(topic: str, body: bytes) -> str | Invalidation:
    """Return the id of the order that an event is about, or else what follows from the event alone."""
    family, _, what = topic.partition("/")
    try:
        found = _decode_body(body)
        if topic == "shop/redact":
            return Invalidation(erase=Erasure())
        if topic == "customers/redact":
            return _forgotten(found)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        return Invalidation(nothing=f"the event cannot be read ({problem})")
    if topic == "app/uninstalled":
        return Invalidation(revoked=True)
    if topic == "customers/data_request":
        return Invalidation(nothing=_ASKED_FOR)
    if family in _CATALOG:
        return Invalidation(streams=frozenset({("catalog", "", None)}))
    if family in _STOCK:
        return Invalidation(streams=frozenset({("inventory", str(found.location_id or ""), None)}))
    if family == "locations":
        return Invalidation(locations=True, streams=frozenset({("catalog", "", None)}))
    order_id = _order_id(family, what, found)
    if (
        topic == "orders/delete" and order_id is not None
    ):  # it names nothing but the id, and cannot be asked for any more
        return Invalidation(deleted=frozenset({str(order_id)}))
    if order_id is not None:
        return str(order_id)
    if family in _ITSELF | _OF_ORDER:
        return Invalidation(nothing=f"this event of type {topic} names no order")
    return Invalidation(nothing=f"events of type {topic} say nothing about sales")


def _order_id(family: str, what: str, found: _Body) -> int | None:
    if family in _OF_ORDER:
        return found.order_id
    if family in _ITSELF:
        # An edit's body is the edit, not the order.
        edit = found.order_edit.order_id if found.order_edit is not None else None
        return edit or (found.order_id if what == "edited" else None) or found.id
    return None


def _forgotten(found: _Body) -> Invalidation:
    """Return whom to forget: a customer by what they are known by, and their orders."""
    person = _Person(found.customer_id, found.customer_email, found.customer_phone)
    if bytes(found.customer) not in (b"", b"null"):  # as it came, and as events were kept before
        person = decode(found.customer, _Person)
    texts = tuple(text for text in (person.email, person.phone) if text)
    customers = (str(person.id),) if person.id is not None else ()
    orders = tuple(map(str, found.orders_to_redact))
    if not customers and not orders and not texts:  # an erasure that names nobody would mean the whole shop
        return Invalidation(nothing="it names neither a customer nor an order")
    return Invalidation(erase=Erasure(customers, orders, texts))


def _refuse_foreign(topic: str, shop: str, members: Mapping[str, msgspec.Raw]) -> None:
    """See that a body is one of the topic and of the shop that its headers name, as far as it says so itself.

    The shapes are those of https://shopify.dev/docs/apps/build/compliance/privacy-law-compliance and
    https://shopify.dev/docs/api/webhooks. `orders/delete` names no shop: what it names is looked up in that shop.

    Raises:
        WebhookRefusedError: it is not.

    """
    if topic == "orders/delete":
        fits = "id" in members and "created_at" not in members  # which any whole object has
    elif topic == "app/uninstalled":
        fits = _names(members, "myshopify_domain", shop)
    else:
        others = {"data_request", "orders_requested"} | (
            {"customer", "orders_to_redact"} if topic == "shop/redact" else set()
        )
        fits = _names(members, "shop_domain", shop) and "shop_id" in members and not others & members.keys()
        fits = fits and (topic == "shop/redact" or bool({"customer", "orders_to_redact"} & members.keys()))
    if not fits:
        raise WebhookRefusedError(f"the body is not one of {topic} of the shop that the delivery names")


def _names(members: Mapping[str, msgspec.Raw], name: str, shop: str) -> bool:
    try:
        return decode(members.get(name, b"null"), str).casefold() == shop.casefold()
    except msgspec.DecodeError:
        return False


def _request(members: Mapping[str, msgspec.Raw]) -> bytes:
    """Return what is kept of a request to forget a customer: whom it names, as members that become pseudonyms.

    `customer` itself is taken out of whatever is stored, and nobody would know any more who is to be forgotten.

    Raises:
        WebhookRefusedError: the customer or their orders cannot be read.

    """
    try:
        person = decode(members.get("customer", b"null"), _Person | None) or _Person()
        orders = decode(members.get("orders_to_redact", b"[]"), list[int] | None) or []
    except msgspec.DecodeError as problem:
        raise WebhookRefusedError(f"the body is not a request to forget a customer ({problem})") from problem
    whom = {"customer_id": person.id, "customer_email": person.email, "customer_phone": person.phone}
    return msgspec.json.encode({**{k: v for k, v in whom.items() if v}, "orders_to_redact": orders})


def _header(headers: Mapping[str, str], name: str) -> str:
    """Return a header by Shopify's own name; subscriptions to events have them without `X-`."""
    return headers.get(f"x-shopify-{name}", "") or headers.get(f"shopify-{name}", "")


def _instant(text: str) -> datetime | None:
    try:
        found = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return None
    return found.astimezone(UTC) if found.tzinfo is not None else None
