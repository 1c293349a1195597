"""What Square can say of payments, goods, counts and work beyond its examples, through the SQL."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flux_pipelines.providers.base import Location
from flux_pipelines.providers.square import PROVIDER
from flux_pipelines_tests.sync.streamfiles import DAY, record, run_sql

STORES = [Location("L1", "One", "America/New_York", "USD"), Location("L2", "Two", "America/New_York", "USD")]
AT = "2026-03-02T12:00:00Z"


def usd(amount: Any, currency: str = "USD") -> dict[str, Any]:
    return {"amount": amount, "currency": currency}


def payment(id_: str = "P", **more: Any) -> dict[str, Any]:
    base = {
        "id": id_,
        "created_at": AT,
        "updated_at": AT,
        "status": "COMPLETED",
        "source_type": "CARD",
        "location_id": "L1",
    }
    return {**base, "amount_money": usd(1000), "tip_money": usd(150), **more}


def made(folder: Path, table: str, *given: tuple[str, dict[str, Any]], **more: Any) -> Any:
    return run_sql(folder, PROVIDER, table, [record(kind, one, "L1") for kind, one in given], STORES, **more)


def by_key(result: Any, key: str) -> dict[str, dict[str, Any]]:
    assert result.bad == []
    return {row[key]: row for row in result.rows.to_pylist()}


def test_a_date_of_many_payments_fits_into_memory(tmp_path: Path) -> None:
    card = {"card": {"card_brand": "VISA", "fingerprint": "f" * 300, "billing_address": {"line": ["x" * 50] * 5}}}
    given = [
        payment(
            f"P{n}", card_details=card, processing_fee=[{"amount_money": usd(30)}], note="n" * 300, app_fee_money=usd(5)
        )
        for n in range(4000)
    ]
    rows = by_key(made(tmp_path, "payments", *(("payment", one) for one in given)), "payment_id")
    assert {(row["amount"], row["tip"], row["fee"]) for row in rows.values()} == {
        (Decimal("10.00"), Decimal("1.50"), Decimal("-0.35"))
    }
    assert len(rows) == len(given)


def test_what_is_null_is_as_what_is_absent(tmp_path: Path) -> None:
    nothing = dict.fromkeys(
        ("card_details", "destination_details", "external_details", "processing_fee", "app_fee_money")
    )
    gift = payment("P", **{**nothing, "card_details": {"card": {"card_brand": "SQUARE_GIFT_CARD"}}})
    other = payment("E", source_type="EXTERNAL", external_details={"type": "CHECK", "source_fee_money": None})
    refund = {**payment("R", **nothing), "payment_id": "P", "destination_type": "CARD", "source_type": None}
    rows = by_key(made(tmp_path, "payments", ("payment", gift), ("payment", other), ("refund", refund)), "payment_id")
    assert {name: (row["tender"], row["fee"]) for name, row in rows.items()} == {
        "P": ("gift_card", 0), "E": ("other", 0), "R": ("gift_card", 0),
    }  # fmt: skip


def test_every_kind_of_tender_and_status(tmp_path: Path) -> None:
    gift = {"card": {"card_brand": "SQUARE_GIFT_CARD"}}
    given = {
        "card": payment(card_details={"card": {"card_brand": "VISA"}}),
        "wallet": payment(source_type="WALLET", wallet_details={"brand": "CASH_APP"}),
        "cash": payment(source_type="CASH"),
        "gift": payment(card_details=gift),
        "bank": payment(source_type="BANK_ACCOUNT", bank_account_details={"transfer_type": "ACH"}),
        "later": payment(source_type="BUY_NOW_PAY_LATER", buy_now_pay_later_details={"brand": "AFTERPAY"}),
        "external": payment(source_type="EXTERNAL", external_details={"type": "CHECK", "source_fee_money": usd(25)}),
        "unheard of": payment(source_type="TELEPATHY", status="DREAMT"),
        "nothing said": {**payment(), "source_type": None, "status": None},
        "approved": payment(status="APPROVED"),
        "pending": payment(status="PENDING"),
        "canceled": payment(status="CANCELED"),
        "failed": payment(status="FAILED", processing_fee=[{"amount_money": usd(30)}]),
    }
    rows = by_key(
        made(tmp_path, "payments", *(("payment", {**one, "id": name}) for name, one in given.items())), "payment_id"
    )
    assert {name: (row["tender"], row["tender_detail"], row["status"]) for name, row in rows.items()} == {
        "card": ("card", "CARD VISA", "completed"),
        "wallet": ("card", "WALLET CASH_APP", "completed"),
        "cash": ("cash", "CASH", "completed"),
        "gift": ("gift_card", "CARD SQUARE_GIFT_CARD", "completed"),
        "bank": ("other", "BANK_ACCOUNT ACH", "completed"),
        "later": ("other", "BUY_NOW_PAY_LATER AFTERPAY", "completed"),
        "external": ("other", "EXTERNAL CHECK", "completed"),
        "unheard of": ("other", "TELEPATHY (DREAMT)", "pending"),
        "nothing said": ("other", "(no status)", "pending"),
        "approved": ("card", "CARD", "pending"),
        "pending": ("card", "CARD", "pending"),
        "canceled": ("card", "CARD", "canceled"),
        "failed": ("card", "CARD", "failed"),
    }
    for name, row in rows.items():
        nothing = name in ("canceled", "failed")
        assert (row["amount"], row["tip"]) == ((0, 0) if nothing else (Decimal(10), Decimal("1.5"))), name
        assert row["fee"] == (Decimal("-0.25") if name == "external" else 0), name


def test_refunds_are_negative_whatever_became_of_them(tmp_path: Path) -> None:
    base = {"created_at": AT, "amount_money": usd(500), "location_id": "L1", "payment_id": "P"}
    card = {"card_details": {"card": {"card_brand": "SQUARE_GIFT_CARD"}}}
    rows = by_key(
        made(
            tmp_path,
            "payments",
            ("refund", {**base, "id": "done", "status": "COMPLETED", "destination_type": "CARD"}),
            (
                "refund",
                {**base, "id": "gift", "status": "COMPLETED", "destination_type": "CARD", "destination_details": card},
            ),
            ("refund", {**base, "id": "cash", "status": "PENDING", "destination_type": "CASH", "payment_id": ""}),
            ("refund", {**base, "id": "no", "status": "REJECTED"}),
        ),
        "payment_id",
    )
    assert {name: (row["tender"], row["status"], row["amount"]) for name, row in rows.items()} == {
        "done": ("card", "completed", -5),
        "gift": ("gift_card", "completed", -5),
        "cash": ("cash", "pending", -5),
        "no": ("other", "failed", 0),
    }
    assert rows["cash"]["source_payment_id"] is None
    assert rows["done"]["source_payment_id"] == "P"


def test_an_offline_payment_was_made_when_the_till_says(tmp_path: Path) -> None:
    offline = payment(created_at="2026-03-04T09:00:00Z", offline_payment_details={"client_created_at": AT})
    (row,) = by_key(made(tmp_path, "payments", ("payment", offline)), "payment_id").values()
    assert row["occurred_at"].isoformat() == "2026-03-02T12:00:00+00:00"


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        ({"amount_money": usd(10.5)}, "not a whole number of minor units"),
        ({"amount_money": usd("1e3")}, "not a whole number of minor units"),
        ({"amount_money": "ten"}, "not a whole number of minor units"),
        ({"amount_money": usd(10**16)}, "not a whole number of minor units"),
        ({"processing_fee": [{"amount_money": usd(0.5)}]}, "not a whole number of minor units"),
        ({"amount_money": usd(10, "XQX")}, "XQX"),
        ({"amount_money": None}, "(none)"),
        ({"tip_money": usd(1, "EUR")}, "two currencies"),
        ({"processing_fee": [{"amount_money": usd(1, "EUR")}]}, "two currencies"),
        ({"created_at": "yesterday"}, "no created_at"),
        ({"id": None}, "no id"),
    ],
)
def test_what_cannot_be_counted_is_set_aside_with_the_reason(
    spoilt: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    result = made(tmp_path, "payments", ("payment", payment("good")), ("payment", {**payment("bad"), **spoilt}))
    assert [row["payment_id"] for row in result.rows.to_pylist()] == ["good"]
    (bad,) = result.bad
    assert reason in bad.reason
    assert b'"created_at"' in bad.payload


def test_money_is_exact_in_every_currency(tmp_path: Path) -> None:
    given = {"JPY": "99999999999999", "KWD": "99999999999.999", "USD": "999999999999.99"}
    rows = by_key(
        made(
            tmp_path,
            "payments",
            *(
                ("payment", payment(code, amount_money=usd(99_999_999_999_999, code), tip_money=usd(-1, code)))
                for code in given
            ),
        ),
        "payment_id",
    )
    for code, text in given.items():
        assert rows[code]["amount"] == Decimal(text)
    assert (rows["JPY"]["tip"], rows["KWD"]["tip"], rows["USD"]["tip"]) == (-1, Decimal("-0.001"), Decimal("-0.01"))


def variation(id_: str, item: str = "I", updated: str = AT, **more: Any) -> dict[str, Any]:
    top = {name: more.pop(name) for name in list(more) if name.startswith(("is_", "present_", "absent_", "version"))}
    data = {"item_id": item, "name": f"{id_} size", "pricing_type": "FIXED_PRICING", "price_money": usd(325), **more}
    return {
        "type": "ITEM_VARIATION",
        "id": id_,
        "updated_at": updated,
        "version": 1,
        **top,
        "item_variation_data": data,
    }


def item(id_: str = "I", *variations: dict[str, Any], updated: str = AT, **more: Any) -> dict[str, Any]:
    deleted = more.pop("is_deleted", False)
    data = {"name": f"Tea {id_}", "variations": list(variations), **more}
    return {"type": "ITEM", "id": id_, "updated_at": updated, "version": 1, "is_deleted": deleted, "item_data": data}


def test_goods_with_everything_that_can_be_said_of_them(tmp_path: Path) -> None:
    category = {"type": "CATEGORY", "id": "C", "updated_at": "2026-03-02T15:00:00Z", "category_data": {"name": "Hot"}}
    tea = item(
        "I",
        variation("inside"),
        variation("coded", sku="TEA-1", upc="036000291452"),
        variation("open", pricing_type="VARIABLE_PRICING"),
        variation("unsold", sellable=False),
        variation("here", present_at_all_locations=False, present_at_location_ids=["L2"]),
        variation("nowhere", present_at_all_locations=False),
        variation("absent", present_at_all_locations=True, absent_at_location_ids=["L1", "L2"]),
        variation("almost", present_at_all_locations=True, absent_at_location_ids=["L1"]),
        updated="2026-03-02T13:00:00Z",
        categories=[{"id": "other", "ordinal": 1}],
        reporting_category={"id": "C", "ordinal": 0},
    )
    rows = by_key(
        made(
            tmp_path,
            "products",
            ("category", category),
            ("item", tea),
            ("item_variation", variation("inside", price_money=usd(350), version=2, updated="2026-03-02T14:00:00Z")),
            ("item_variation", variation("gone", is_deleted=True)),
            ("item", item("A", variation("archived", "A"), is_archived=True, category_id="C")),
            ("item", item("D", variation("deleted item", "D"), is_deleted=True, categories=[{"id": "unknown"}])),
            ("item_variation", variation("orphan", "nobody")),
            ("item_variation", {"type": "ITEM_VARIATION", "id": "bare", "is_deleted": True}),
        ),
        "product_id",
    )
    assert {name for name, row in rows.items() if row["active"]} == {
        "inside",
        "coded",
        "open",
        "here",
        "almost",
        "orphan",
    }
    assert len(rows) == 13
    inside = rows["inside"]
    assert (inside["price"], inside["product_name"], inside["variation"]) == (Decimal("3.50"), "Tea I", "inside size")
    assert (inside["category"], inside["item_id"]) == ("Hot", "I")
    assert inside["changed_at"].hour == 15, "the category's new name changed it last"
    assert (rows["coded"]["sku"], rows["coded"]["upc"], rows["inside"]["sku"]) == ("TEA-1", "036000291452", None)
    assert (rows["open"]["price"], rows["open"]["currency"]) == (None, None)
    assert (rows["archived"]["category"], rows["deleted item"]["category"]) == ("Hot", None)
    assert rows["orphan"]["product_name"] == "orphan size"
    assert rows["bare"]["product_name"] == "Unnamed item"


def test_a_price_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    result = made(
        tmp_path,
        "products",
        ("item", item("I", variation("A", price_money=usd(1.5)), variation("B", price_money=usd(1, "?")))),
    )
    assert result.rows.num_rows == 0
    assert sorted(bad.reason.partition(": ")[2][:20] for bad in result.bad) == [
        "its currency ? is no",
        "its price is not a w",
    ]


def test_counts_below_zero_and_of_other_states(tmp_path: Path) -> None:
    def count(id_: str, quantity: Any, state: str = "IN_STOCK") -> tuple[str, dict[str, Any]]:
        return "count", {"catalog_object_id": id_, "state": state, "quantity": quantity, "location_id": "L2"}

    result = made(
        tmp_path,
        "inventory_levels",
        count("oversold", "-3"),
        count("none", "0"),
        count("weighed", "2.12500"),
        count("wasted", "9", "WASTE"),
        count("fine", "0.123456"),
        count("silent", None),
        slot=f"{DAY}/07",
    )
    rows = {row["product_id"]: row for row in result.rows.to_pylist()}
    assert {name: (row["quantity"], row["availability"]) for name, row in rows.items()} == {
        "oversold": (-3, "out_of_stock"),
        "none": (0, "out_of_stock"),
        "weighed": (Decimal("2.125"), "in_stock"),
    }
    assert rows["none"]["location_id"] == "L2"
    assert len(result.bad) == 2


def test_what_a_seller_marked_as_sold_out_is_whatever_was_counted(tmp_path: Path) -> None:
    """ItemVariationLocationOverrides.sold_out: by hand too, tracked or not; until `sold_out_valid_until`."""

    def marked(id_: str, *places: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return "sold_out", variation(id_, location_overrides=[{"sold_out": True, **one} for one in places])

    def count(id_: str, quantity: Any) -> tuple[str, dict[str, Any]]:
        return "count", {"catalog_object_id": id_, "state": "IN_STOCK", "quantity": quantity, "location_id": "L1"}

    here, there = {"location_id": "L1"}, {"location_id": "L2"}
    result = made(
        tmp_path,
        "inventory_levels",
        count("counted", "7"),
        marked("counted", here),
        marked("never counted", here, there),
        count("elsewhere", "2"),
        marked("elsewhere", there, {"location_id": "L1", "sold_out": False}, {"location_id": "CLOSED LONG AGO"}),
        count("over", "4"),
        marked("over", {**here, "sold_out_valid_until": f"{DAY}T06:59:00Z"}),
        count("not over", "4"),
        marked("not over", {**here, "sold_out_valid_until": f"{DAY}T07:30:00Z"}),
        count("spoilt", "many"),
        marked("spoilt", here),
        slot=f"{DAY}/07",
    )
    rows = {(row["product_id"], row["location_id"]): row for row in result.rows.to_pylist()}
    assert {key: (row["quantity"], row["availability"]) for key, row in rows.items()} == {
        ("counted", "L1"): (7, "out_of_stock"),
        ("never counted", "L1"): (None, "out_of_stock"),
        ("never counted", "L2"): (None, "out_of_stock"),
        ("elsewhere", "L1"): (2, "in_stock"),
        ("elsewhere", "L2"): (None, "out_of_stock"),
        ("over", "L1"): (4, "in_stock"),
        ("not over", "L1"): (4, "out_of_stock"),
        ("spoilt", "L1"): (None, "out_of_stock"),
    }
    assert [bad.reason.partition(": ")[2] for bad in result.bad] == [
        "its quantity is not a number of at most 5 decimal places"
    ]


def test_a_refund_goes_back_to_what_was_paid_with(tmp_path: Path) -> None:
    """PaymentRefund: `destination_type` has no word for gift cards, and `destination_details` are there only if the money
    went elsewhere (`destination_id` of RefundPayment)."""
    gift = {"card_details": {"card": {"card_brand": "SQUARE_GIFT_CARD"}}}
    visa = {"card_details": {"card": {"card_brand": "VISA"}}}

    def refund(id_: str, of: str, **more: Any) -> tuple[str, dict[str, Any]]:
        base = {"created_at": AT, "amount_money": usd(500), "location_id": "L1", "status": "COMPLETED"}
        return "refund", {**base, "id": id_, "payment_id": of, **more}

    rows = by_key(
        made(
            tmp_path,
            "payments",
            ("payment", payment("TODAY", **gift)),
            ("refunded_payment", payment("GIFT", **gift)),
            ("refunded_payment", payment("CASH", source_type="CASH")),
            ("refunded_payment", payment("VISA", **visa)),
            ("refunded_tender", {"id": "GIFT TENDER", "type": "SQUARE_GIFT_CARD"}),
            ("refunded_tender", {"id": "CARD TENDER", "type": "CARD", **visa}),
            ("refunded_tender", {"id": "OTHER TENDER", "type": "OTHER"}),
            refund("gift tender", "GIFT TENDER", destination_type="CARD"),
            refund("card tender", "CARD TENDER"),
            refund("cash for card tender", "CARD TENDER", destination_type="CASH"),
            refund("other tender", "OTHER TENDER", destination_type="EXTERNAL"),
            refund("other tender, nothing said", "OTHER TENDER"),
            refund("of today", "TODAY", destination_type="CARD"),
            refund("gift", "GIFT", destination_type="CARD"),
            refund("nothing said", "GIFT"),
            refund("cash", "CASH"),
            refund("card for cash", "VISA", destination_type="CASH"),
            refund("gift for card", "VISA", destination_type="CARD", destination_details=gift),
            refund("card for gift", "GIFT", destination_type="CARD", destination_details=visa),
            refund("unknown", "GONE"),
            refund("unknown card", "GONE", destination_type="CARD"),
        ),
        "payment_id",
    )
    assert {name: (row["tender"], row["tender_detail"]) for name, row in rows.items()} == {
        "TODAY": ("gift_card", "CARD SQUARE_GIFT_CARD"),
        "of today": ("gift_card", "CARD SQUARE_GIFT_CARD"),
        "gift": ("gift_card", "CARD SQUARE_GIFT_CARD"),
        "nothing said": ("gift_card", "CARD SQUARE_GIFT_CARD"),
        "cash": ("cash", "CASH"),
        "card for cash": ("cash", "CASH"),
        "gift for card": ("gift_card", "CARD SQUARE_GIFT_CARD"),
        "card for gift": ("card", "CARD VISA"),
        "unknown": ("other", None),
        "unknown card": ("card", "CARD"),
        "gift tender": ("gift_card", "CARD SQUARE_GIFT_CARD"),
        "card tender": ("card", "CARD VISA"),
        "cash for card tender": ("cash", "CASH"),
        "other tender": ("other", "EXTERNAL"),
        "other tender, nothing said": ("other", "EXTERNAL"),
    }, "the payments given back are rows of their own date, not of this one"


def test_what_an_app_takes_and_gives_back_is_part_of_the_fee(tmp_path: Path) -> None:
    """Payment.app_fee_money is what the developer takes of it; PaymentRefund.app_fee_money what they contribute."""
    given = [{"amount_money": usd(88), "type": "INITIAL"}]
    back = {"id": "R", "created_at": AT, "amount_money": usd(1000), "status": "COMPLETED", "app_fee_money": usd(200)}
    rows = by_key(
        made(
            tmp_path,
            "payments",
            ("payment", payment("P", processing_fee=given, app_fee_money=usd(200))),
            ("refund", {**back, "processing_fee": [{"amount_money": usd(-34)}]}),
        ),
        "payment_id",
    )
    assert (rows["P"]["fee"], rows["R"]["fee"]) == (Decimal("-2.88"), Decimal("2.34"))


def test_work_that_goes_on_and_odd_timecards(tmp_path: Path) -> None:
    def card(id_: str, **more: Any) -> tuple[str, dict[str, Any]]:
        base = {"id": id_, "location_id": "L1", "team_member_id": "T", "start_at": "2026-03-02T22:00:00-05:00"}
        return "time_entry", {**base, "status": "CLOSED", "end_at": "2026-03-03T06:30:00-05:00", **more}

    lunch = {"start_at": "2026-03-03T00:00:00-05:00", "end_at": "2026-03-03T00:45:00-05:00", "is_paid": False}
    result = made(
        tmp_path,
        "time_entries",
        card("night", breaks=[lunch, {**lunch, "is_paid": True}, {"start_at": lunch["start_at"], "is_paid": False}]),
        card("open", status="OPEN", end_at=None),
        card("new", status="NAPPING", end_at=None),
        card("unpaid", wage={"hourly_rate": usd(1999), "title": ""}),
        card("backwards", end_at="2026-03-02T21:00:00-05:00"),
        card("endless", end_at="later"),
        card("nobody", team_member_id=None),
        card("mixed", wage={"hourly_rate": usd(1)}, declared_cash_tip_money=usd(1, "EUR")),
    )
    rows = {row["time_entry_id"]: row for row in result.rows.to_pylist()}
    assert (rows["night"]["paid_hours"], rows["night"]["unpaid_break_minutes"]) == (Decimal("7.75"), 45)
    assert (rows["night"]["currency"], rows["night"]["hourly_wage"]) == ("USD", None), "the store's currency"
    assert (rows["unpaid"]["hourly_wage"], rows["unpaid"]["job_title"]) == (Decimal("19.99"), None)
    for name in ("open", "new"):
        assert (rows[name]["status"], rows[name]["paid_hours"], rows[name]["clock_out"]) == ("open", None, None)
    assert len(rows) == 4
    assert len(result.bad) == 4
