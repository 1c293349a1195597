"""Payments, products and stock that the sandbox does not show, and Shopify's published examples of them."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

from flux_pipelines.providers.base import Location, Record
from flux_pipelines.providers.shopify import PROVIDER
from flux_pipelines_tests.providers.shopify import published
from flux_pipelines_tests.providers.shopify.nodes import agreed, bag, gid, level, nodes, order, product, transaction
from flux_pipelines_tests.sync.streamfiles import record, run_sql

STORES = [Location("7", "Acme (online)", "America/New_York", "USD")]


def paid(*transactions: dict[str, Any], **more: Any) -> Record:
    node = {
        "flux_location_id": "7",
        "id": gid("Order", 1),
        "legacyResourceId": "1",
        "currencyCode": "USD",
        "test": False,
        "updatedAt": "2026-03-02T13:00:00Z",
        "totalTipReceivedSet": bag("0.0"),
        "transactions": list(transactions),
        "refunds": [],
        "lineItems": nodes([]),
    }
    return record("order", {"agreements": nodes([]), **node, **more})


def tender(number: int, kind: str, amount: str, status: str = "SUCCESS", **more: Any) -> dict[str, Any]:
    node = {
        "id": gid("OrderTransaction", number),
        "kind": kind,
        "status": status,
        "gateway": "shopify_payments",
        "test": False,
        "createdAt": "2026-03-02T12:00:00Z",
        "processedAt": f"2026-03-02T12:00:{number:02d}Z",
        "amountSet": bag(amount),
        "fees": [],
        "parentTransaction": None,
        "paymentDetails": None,
    }
    return {**node, **more}


def after(number: int) -> dict[str, Any]:
    return {"parentTransaction": {"id": gid("OrderTransaction", number)}}


def payments(folder: Path, *orders: Record) -> list[dict[str, Any]]:
    made = run_sql(folder, PROVIDER, "payments", orders, STORES)
    assert made.bad == []
    return sorted(made.rows.to_pylist(), key=lambda row: int(row["payment_id"]))


def test_a_date_of_many_long_orders_fits_into_memory(tmp_path: Path) -> None:
    lines = [{"id": gid("LineItem", n), "title": "Tea " * 200} for n in range(100)]
    given = [
        paid(tender(1, "SALE", "5.00", id=gid("OrderTransaction", n)), legacyResourceId=str(n), lineItems=nodes(lines))
        for n in range(1000)
    ]
    assert len(payments(tmp_path, *given)) == len(given)


def test_promises_captures_change_and_refunds(tmp_path: Path) -> None:
    fee = {"amount": {"amount": "0.59", "currencyCode": "USD"}, "taxAmount": {"amount": "0.01", "currencyCode": "USD"}}
    foreign = {"amount": {"amount": "9.0", "currencyCode": "EUR"}, "taxAmount": {"amount": "0", "currencyCode": "EUR"}}
    rows = payments(
        tmp_path,
        paid(
            tender(1, "AUTHORIZATION", "20.0"),
            tender(2, "CAPTURE", "20.0", **after(1), fees=[fee, foreign]),
            tender(3, "AUTHORIZATION", "5.0"),
            tender(4, "VOID", "5.0", **after(3)),
            tender(5, "AUTHORIZATION", "6.0"),
            tender(6, "SALE", "20.0", gateway="cash"),
            tender(7, "CHANGE", "2.5", gateway="cash", **after(6)),  # is no payment: 6 is less by it
            tender(8, "SALE", "9.0", "FAILURE"),
            tender(9, "SALE", "8.0", "PENDING", gateway="bank_deposit"),
            tender(10, "SALE", "7.0", gateway="gift_card"),
            tender(11, "REFUND", "4.0", **after(2)),
            tender(12, "SALE", "3.0", gateway="paypal", paymentDetails={"__typename": "PaypalWalletPaymentDetails"}),
            tender(13, "SALE", "3.0", test=True),
        ),
    )
    found = [(r["payment_id"], r["kind"], r["tender"], r["amount"], r["fee"], r["status"]) for r in rows]
    assert found == [
        ("2", "payment", "card", 20, Decimal("-0.60"), "completed"),
        ("3", "payment", "card", 0, 0, "canceled"),
        ("5", "payment", "card", 6, 0, "pending"),
        ("6", "payment", "cash", Decimal("17.5"), 0, "completed"),
        ("8", "payment", "card", 0, 0, "failed"),
        ("9", "payment", "other", 8, 0, "pending"),
        ("10", "payment", "gift_card", 7, 0, "completed"),
        ("11", "refund", "card", -4, 0, "completed"),
        ("12", "payment", "other", 3, 0, "completed"),
    ]
    assert rows[7]["source_payment_id"] == "2"
    assert {(r["location_id"], r["order_id"], r["currency"]) for r in rows} == {("7", "1", "USD")}
    assert rows[0]["occurred_at"].isoformat() == "2026-03-02T12:00:02+00:00"


def test_a_tip_is_in_the_last_tender_that_can_hold_it_and_comes_back_in_the_first(tmp_path: Path) -> None:
    tips = [
        {"lineType": "TIP", "actionType": action, "totalAmount": bag(amount)}
        for action, amount in (("ORDER", "3.0"), ("RETURN", "-3.0"))
    ]
    rows = payments(
        tmp_path,
        paid(
            tender(1, "SALE", "10.0", gateway="cash"),
            tender(2, "SALE", "12.0"),
            tender(3, "SALE", "2.0", gateway="gift_card"),
            tender(4, "REFUND", "2.0", **after(3)),
            tender(5, "REFUND", "8.0", **after(2)),
            agreements=nodes([{"sales": nodes([tip])} for tip in tips]),
        ),
    )
    assert [(r["amount"], r["tip"]) for r in rows] == [(10, 0), (9, 3), (2, 0), (-2, 0), (-5, -3)]


def test_a_refund_has_the_tender_of_its_payment_where_it_went_back_the_same_way(tmp_path: Path) -> None:
    card = {"gateway": "worldpay", "paymentDetails": {"__typename": "CardPaymentDetails"}}
    rows = payments(
        tmp_path,
        paid(
            tender(1, "SALE", "10.0", **card),
            tender(2, "REFUND", "4.0", gateway="worldpay", **after(1)),  # without details of its own
            tender(3, "REFUND", "6.0", gateway="shopify_store_credit", **after(1)),
        ),
    )
    assert [(r["tender"], r["amount"], r["source_payment_id"]) for r in rows] == [
        ("card", 10, None),
        ("card", -4, "1"),
        ("other", -6, "1"),
    ]


def test_an_unlisted_product_can_be_sold(tmp_path: Path) -> None:
    variant = {"legacyResourceId": "1", "title": "Default Title", "price": "4.5", "sku": "S"}
    catalog = [
        record("product", {"legacyResourceId": status, "title": status, "status": status, "variants": nodes([{**variant, "legacyResourceId": status}])})
        for status in ("ACTIVE", "UNLISTED", "DRAFT", "ARCHIVED")
    ]  # fmt: skip
    made = run_sql(tmp_path, PROVIDER, "products", catalog, STORES, slot="current")
    sold = {row["product_name"] for row in made.rows.to_pylist() if row["active"]}
    assert sold == {"ACTIVE", "UNLISTED"}


def test_the_published_payments_are_read_to_their_values(examples: Path, tmp_path: Path) -> None:
    printed = published.transactions(examples)
    whole = published.order(examples, "rest_order_get_with_refunds")
    rows = payments(tmp_path, record("order", agreed(order(whole, printed))))
    published.expect_payments([*printed, *whole["refunds"][0]["transactions"]], rows)
    assert transaction(printed[0])["kind"] in ("AUTHORIZATION", "CAPTURE", "SALE", "REFUND", "VOID")


def test_the_published_products_and_counts_are_read_to_their_values(examples: Path, tmp_path: Path) -> None:
    printed = published.products(examples, "rest_products_list")
    catalog = [record("product", product(one)) for one in printed]
    broken = record("product", {"legacyResourceId": "9", "title": "Nothing", "variants": nodes([])})
    made = run_sql(tmp_path / "p", PROVIDER, "products", [*catalog, broken], STORES, slot="current")
    assert [bad.reason.rpartition(": ")[2] for bad in made.bad] == [
        "the product has no variant, so there is nothing to sell"
    ]
    published.expect_products(printed, made.rows.to_pylist())
    levels = published.levels(examples)
    stock = [record("level", level(one), str(one["location_id"])) for one in levels]
    untracked = {"quantities": [], "item": {"tracked": False, "sku": "S", "variant": {"legacyResourceId": "1"}}}
    odd = {"quantities": [], "item": {"tracked": True, "variant": {"legacyResourceId": "2"}}}
    gone = {"quantities": [], "item": {"tracked": True, "variant": None}}
    more = [record("level", item, "7") for item in (untracked, odd, gone)]
    made = run_sql(tmp_path / "s", PROVIDER, "inventory_levels", [*stock, *more], STORES, slot="2026-03-02/14")
    assert [bad.reason.rpartition(": ")[2] for bad in made.bad] == ["it is tracked and has no quantity `available`"]
    (seventh,) = [row for row in made.rows.to_pylist() if row["location_id"] == "7"]
    assert (seventh["product_id"], seventh["quantity"], seventh["availability"], seventh["sku"]) == (
        "1",
        None,
        "in_stock",
        "S",
    )
    published.expect_levels(levels, [row for row in made.rows.to_pylist() if row["location_id"] != "7"])
