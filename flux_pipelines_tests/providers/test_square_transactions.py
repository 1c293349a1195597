"""Square's own examples, and orders of every kind, through transactions.sql: to the totals printed in them."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flux_pipelines.domain.business_day import BusinessCalendar
from flux_pipelines.domain.tables import TRANSACTIONS
from flux_pipelines.providers.square.client import decode_page
from flux_pipelines_tests.providers.square.examples import EXAMPLES, KINDS, as_sold, check_order, objects
from flux_pipelines_tests.sync.rawfiles import normalise


def found_orders() -> list[Any]:
    """Every object in the example files that is an order with lines."""
    if not EXAMPLES.is_dir():
        return [pytest.param({}, id="absent", marks=pytest.mark.skip(reason="the shared examples are not here"))]
    found: list[Any] = []
    for file in sorted(EXAMPLES.glob("*.json")):
        for item in objects(json.loads(file.read_text())):
            if KINDS["orders"](item):
                found.append(pytest.param(item, id=f"{file.stem}-{len(found)}"))
    return found


@pytest.mark.parametrize("example", found_orders())
def test_the_examples_read_to_their_printed_totals(example: dict[str, Any], tmp_path: Path) -> None:
    order = as_sold(example)

    rows, work = normalise(tmp_path, [order])

    assert work.bad == []
    check_order(rows, order)


def usd(amount: int, currency: str = "USD") -> dict[str, Any]:
    return {"amount": amount, "currency": currency}


def line(uid: str = "l1", amount: int = 1000, **more: Any) -> dict[str, Any]:
    return {
        "uid": uid,
        "name": "Tea",
        "variation_name": "Large",
        "catalog_object_id": "VAR",
        "quantity": "1",
        "item_type": "ITEM",
        "base_price_money": usd(amount),
        "total_tax_money": usd(0),
        "total_discount_money": usd(0),
        "total_money": usd(amount),
        **more,
    }


def order(*lines: dict[str, Any], total: int, **more: Any) -> dict[str, Any]:
    return {
        "id": "O1",
        "location_id": "L1",
        "state": "COMPLETED",
        "created_at": "2026-03-02T12:00:00.123Z",
        "line_items": list(lines),
        "total_money": usd(total),
        **more,
    }


def one(folder: Path, given: dict[str, Any]) -> list[dict[str, Any]]:
    rows, work = normalise(folder, [given])
    assert work.bad == []
    return rows


def test_rows_have_the_contracts_schema(tmp_path: Path) -> None:
    from flux_pipelines_tests.sync.rawfiles import CONNECTION, DAY, PROVIDER, Normalisation, land, raw_store

    raw = raw_store(tmp_path)
    work = Normalisation(PROVIDER, raw, CONNECTION, [land(raw, [order(line(), total=1000)])])
    table = work.reader().read_all()
    assert table.schema.equals(TRANSACTIONS.arrow_schema())
    row = table.to_pylist()[0]
    assert row["business_date"] == DAY
    assert row["connection"] == "square:test"
    assert row["tenant"] == "tenant"
    assert row["source_system"] == "square"
    assert row["source_version"] == PROVIDER.api_version
    assert row["occurred_at"].isoformat() == "2026-03-02T12:00:00.123000+00:00"
    assert work.days[DAY].orders == work.days[DAY].rows == work.days[DAY].lines == 1
    assert work.days[DAY].net == {"USD": Decimal("10.00")}


def test_tip_rounding_and_service_charges_stand_beside_the_lines(tmp_path: Path) -> None:
    rows = one(
        tmp_path,
        order(
            line(amount=1000, total_tax_money=usd(80), total_money=usd(1080)),
            total=1080 + 108 + 200 - 3,
            service_charges=[
                {
                    "uid": "sc1",
                    "name": "Service",
                    "calculation_phase": "SUBTOTAL_PHASE",
                    "applied_money": usd(100),
                    "total_tax_money": usd(8),
                    "total_money": usd(108),
                }
            ],
            total_tip_money=usd(200),
            rounding_adjustment={"amount_money": usd(-3)},
            tenders=[
                {"type": "CASH", "amount_money": usd(85)},
                {"type": "CARD", "amount_money": usd(1000), "tip_money": usd(200)},
                {"type": "WALLET", "amount_money": usd(100)},
                {"type": "SQUARE_GIFT_CARD", "amount_money": usd(150)},
                {"type": "BUY_NOW_PAY_LATER", "amount_money": usd(50)},
            ],
        ),
    )
    by_type = {row["line_type"]: row for row in rows}
    assert list(by_type) == ["item", "service_charge", "tip", "rounding"]
    charge = by_type["service_charge"]
    assert (charge["line_id"], charge["net"], charge["tax"], charge["total"]) == (
        "service_charge:sc1",
        Decimal("1.00"),
        Decimal("0.08"),
        Decimal("1.08"),
    )
    for kind, total in (("tip", "2.00"), ("rounding", "-0.03")):
        row = by_type[kind]
        assert row["total"] == Decimal(total)
        assert row["gross"] == row["net"] == row["tax"] == row["quantity"] == 0
    tendered = [name for name in TRANSACTIONS.column_names if name.startswith("tendered")]
    assert [rows[0][name] for name in tendered] == [Decimal(x) for x in ("0.85", "11", "1.5", "0.5", "0")]
    assert all(row[name] == 0 for row in rows[1:] for name in tendered)


def test_an_apportioned_charge_is_counted_once_and_apart_from_the_goods(tmp_path: Path) -> None:
    carried = {"service_charge_uid": "sc", "applied_money": usd(100)}
    rows = one(
        tmp_path,
        order(
            line(
                amount=1000,
                total_service_charge_money=usd(100),
                applied_service_charges=[carried],
                total_tax_money=usd(88),
                total_money=usd(1188),
            ),
            total=1188,
            service_charges=[
                {
                    "uid": "sc",
                    "name": "Fee",
                    "calculation_phase": "APPORTIONED_PERCENTAGE_PHASE",
                    "treatment_type": "APPORTIONED_TREATMENT",
                    "applied_money": usd(100),
                    "total_money": usd(108),
                    "total_tax_money": usd(8),
                }
            ],
        ),
    )
    assert [(r["line_type"], r["net"], r["tax"], r["total"]) for r in rows] == [
        ("item", Decimal("10"), Decimal("0.88"), Decimal("10.88")),
        ("service_charge", Decimal("1"), Decimal("0"), Decimal("1")),
    ]


def test_inclusive_tax_is_taken_out_of_gross_wherever_square_leaves_it(tmp_path: Path) -> None:
    rows = one(
        tmp_path,
        order(
            line(amount=1200, gross_sales_money=usd(1200), total_tax_money=usd(200), total_money=usd(1200)),
            # without totals of its own: what is inclusive is told by the order's list of taxes
            {
                "uid": "l2",
                "name": "Cake",
                "quantity": "2.5",
                "base_price_money": usd(400),
                "modifiers": [{"base_price_money": usd(20), "quantity": "2"}],
                "applied_taxes": [
                    {"tax_uid": "vat", "applied_money": usd(183)},
                    {"tax_uid": "city", "applied_money": usd(10)},
                ],
            },
            total=1200 + 1100 + 10,
            taxes=[{"uid": "vat", "type": "INCLUSIVE"}, {"uid": "city", "type": "ADDITIVE"}],
        ),
    )
    assert [(r["gross"], r["net"], r["tax"], r["total"]) for r in rows] == [
        (Decimal("10"), Decimal("10"), Decimal("2"), Decimal("12")),
        (Decimal("9.17"), Decimal("9.17"), Decimal("1.93"), Decimal("11.10")),
    ]
    assert rows[1]["product_id"] == "name:Cake|"
    assert rows[1]["quantity"] == Decimal("2.5")


def test_a_gift_card_is_not_revenue_and_a_custom_amount_is(tmp_path: Path) -> None:
    rows = one(
        tmp_path,
        order(
            line("g", 2500, item_type="GIFT_CARD", catalog_object_id=None, name=None, variation_name=None),
            line("c", 700, item_type="CUSTOM_AMOUNT", catalog_object_id=None, name=None, variation_name=None),
            total=3200,
        ),
    )
    gift, custom = rows
    assert (gift["line_type"], gift["gross"], gift["net"], gift["total"]) == ("gift_card", 0, 0, Decimal("25"))
    assert (custom["line_type"], custom["net"], custom["product_name"]) == ("custom_amount", 7, "Custom amount")
    assert custom["product_id"] == "name:Custom amount|"


def test_a_return_is_negative_and_linked_to_what_was_sold(tmp_path: Path) -> None:
    rows = one(
        tmp_path,
        order(
            line("new", 500),
            total=500,
            returns=[
                {
                    "uid": "r1",
                    "source_order_id": "SOLD",
                    "return_line_items": [
                        {
                            **line("back", 1000, quantity="2", total_tax_money=usd(160)),
                            "source_line_item_uid": "s1",
                            "base_price_money": usd(550),
                            "total_discount_money": usd(100),
                            "total_money": usd(1160),
                        }
                    ],
                    "return_service_charges": [
                        {
                            "uid": "rsc",
                            "source_service_charge_uid": "sc",
                            "applied_money": usd(50),
                            "total_money": usd(50),
                        }
                    ],
                    "return_tips": [{"uid": "t", "applied_money": usd(30)}],
                    "rounding_adjustment": {"amount_money": usd(2)},
                    "return_amounts": {"total_money": usd(1242)},
                }
            ],
            return_amounts={"total_money": usd(1242)},
            net_amounts={"total_money": usd(500 - 1242)},
            refunds=[
                {"status": "APPROVED", "amount_money": usd(700)},
                {"status": "PENDING", "amount_money": usd(42)},
                {"status": "FAILED", "amount_money": usd(999)},
            ],
        ),
    )
    assert [(r["kind"], r["line_type"], r["total"]) for r in rows] == [
        ("sale", "item", Decimal("5")),
        ("return", "item", Decimal("-11.60")),
        ("return", "service_charge", Decimal("-0.50")),
        ("return", "tip", Decimal("-0.30")),
        ("return", "rounding", Decimal("-0.02")),
    ]
    back = rows[1]
    assert (back["quantity"], back["unit_price"], back["gross"]) == (Decimal("-2"), Decimal("5.50"), Decimal("-11"))
    assert (back["discount"], back["net"], back["tax"]) == (Decimal("-1"), Decimal("-10"), Decimal("-1.60"))
    assert (back["source_order_id"], back["source_line_id"]) == ("SOLD", "s1")
    assert rows[0]["tendered_refund"] == Decimal("-7.42")
    assert rows[0]["source_order_id"] is None


NEW_YORK = {"L1": BusinessCalendar("America/New_York", 4)}
PAID, LATER = "2026-03-02T13:00:00Z", "2026-03-11T03:00:00Z"


def tender(amount: int, at: str | None = PAID, status: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "CARD", "amount_money": usd(amount)}
    return {
        **found,
        **({"created_at": at} if at else {}),
        **({"card_details": {"status": status}} if status else {}),
    }


SOLD: list[tuple[dict[str, Any], bool]] = [
    # "Completed orders are fully paid. This is a terminal state" (OrderState), whatever else an order says.
    ({}, True),
    ({"net_amount_due_money": usd(1000)}, True),
    # "An order doesn't need to be COMPLETED to be paid" (developer.squareup.com/forums/t/100).
    ({"state": "OPEN", "net_amount_due_money": usd(0), "tenders": [tender(1000)]}, True),
    ({"state": "OPEN", "net_amount_due_money": {"currency": "USD"}, "tenders": [tender(1000)]}, True),
    ({"state": "OPEN", "net_amount_due_money": usd(-5), "tenders": [tender(1005)]}, True),
    ({"state": "OPEN", "net_amount_due_money": usd(400), "tenders": [tender(600)]}, False),
    # Carts that nobody bought are open too, and have no tenders (the same thread).
    ({"state": "OPEN", "net_amount_due_money": usd(0)}, False),
    ({"state": "OPEN", "net_amount_due_money": usd(0), "tenders": []}, False),
    # An authorisation leaves net_amount_due_money as it is (developer.squareup.com/forums/t/20280).
    ({"state": "OPEN", "net_amount_due_money": usd(1000), "tenders": [tender(1000, status="AUTHORIZED")]}, False),
    # Documents from before net_amount_due_money: what was paid tells.
    ({"state": "OPEN", "tenders": [tender(600), tender(400)]}, True),
    ({"state": "OPEN", "tenders": [tender(600)]}, False),
    ({"state": "OPEN", "tenders": [tender(600), tender(400, status="AUTHORIZED")]}, False),
    ({"state": "OPEN", "tenders": [tender(600), tender(400, status="VOIDED")]}, False),
    ({"state": "OPEN", "tenders": [tender(600), tender(400, status="CAPTURED")]}, True),
    ({"state": "OPEN", "tenders": [tender(1000)], "net_amounts": {"total_money": usd(1000)}}, True),
    # "Draft orders can be updated, but cannot be paid", "Canceled orders are not paid" (OrderState).
    ({"state": "DRAFT", "net_amount_due_money": usd(0), "tenders": [tender(1000)]}, False),
    ({"state": "CANCELED", "net_amount_due_money": usd(0), "tenders": [tender(1000)]}, False),
]


def test_a_sale_is_what_is_fully_paid_and_the_header_says_the_same(tmp_path: Path) -> None:
    given = [{**order(line(), total=1000, **more), "id": str(number)} for number, (more, _) in enumerate(SOLD)]
    rows, work = normalise(tmp_path, given)
    assert work.bad == []
    assert {row["total"] for row in rows if row["kind"] == "sale"} == {10}
    found = {row["order_id"] for row in rows if row["kind"] == "sale"}
    due = {row["order_id"]: row["due"] for row in rows}
    assert (due["0"], due["1"], due["2"], due["4"]) == (None, 10, 0, Decimal("-0.05")), "what Square says, if it does"
    headers = [one.header for one in decode_page(json.dumps({"orders": given}).encode()).orders]
    for number, (more, counts) in enumerate(SOLD):
        header = headers[number]
        assert header is not None
        assert (str(number) in found, header.counts, header.total) == (counts, counts, 1000), more


DATES: list[tuple[dict[str, Any], str]] = [
    # The last of the tenders (the report's sale_timestamp: "the final payments were received"), whatever comes later.
    ({"tenders": [tender(500), tender(500, LATER)], "closed_at": "2026-03-20T15:00:00Z"}, "2026-03-10"),
    ({"tenders": [tender(500, LATER), tender(500)]}, "2026-03-10"),
    # A payment that was voided was none.
    ({"tenders": [tender(1000), tender(1000, LATER, "VOIDED")]}, "2026-03-02"),
    ({"tenders": [tender(1000, LATER, "AUTHORIZED")]}, "2026-03-10"),
    # Where tenders say no time, when the order was closed; else when it was made.
    ({"tenders": [tender(1000, None)], "closed_at": LATER}, "2026-03-10"),
    ({"tenders": [tender(1000, None)]}, "2026-03-02"),
    ({"tenders": [tender(1000, LATER)], "location_id": "UNKNOWN"}, "2026-03-02"),
    # Past midnight and before the cut-off at 04:00 it is the evening before.
    ({"tenders": [tender(1000, "2026-03-03T08:59:59.999Z")]}, "2026-03-02"),
    ({"tenders": [tender(1000, "2026-03-03T09:00:00Z")]}, "2026-03-03"),
]


def test_a_sale_counts_on_the_date_of_its_final_payment(tmp_path: Path) -> None:
    given = [{**order(line(), total=1000, **more), "id": str(number)} for number, (more, _) in enumerate(DATES)]
    rows, work = normalise(tmp_path, given, NEW_YORK)
    assert work.bad == []
    assert [str(row["business_date"]) for row in rows] == [day for _, day in DATES]
    assert {str(row["raw_date"]) for row in rows} == {"2026-03-02"}
    made = {row["occurred_at"].isoformat() for row in rows}
    assert made == {"2026-03-02T12:00:00.123000+00:00"}, "when the order was made"


def test_a_return_counts_when_the_money_went_back_and_a_void_on_no_date_of_its_own(tmp_path: Path) -> None:
    back = {
        "return_line_items": [{**line("b"), "base_price_money": usd(1000)}],
        "return_amounts": {"total_money": usd(1000)},
    }
    refund = {"status": "APPROVED", "amount_money": usd(1000), "created_at": LATER}
    given = [
        {**order(total=0), "id": "REFUND", "returns": [back], "refunds": [refund], "total_money": None},
        {**order(total=0), "id": "EXCHANGE", "returns": [back], "refunds": [refund], "tenders": [tender(0)]},
        {**order(line(), total=1000, state="CANCELED", closed_at=LATER, tenders=[tender(1000, LATER)]), "id": "VOID"},
    ]
    rows, work = normalise(tmp_path, given, NEW_YORK)
    assert work.bad == []
    assert {row["order_id"]: (row["kind"], str(row["business_date"])) for row in rows} == {
        "REFUND": ("return", "2026-03-10"),
        "EXCHANGE": ("return", "2026-03-02"),
        "VOID": ("void", "2026-03-02"),
    }


def test_a_return_without_totals_is_what_its_amounts_say(tmp_path: Path) -> None:
    """Orders that are a return have no total_money (developer.squareup.com/forums/t/24765); tips may be in the amounts alone."""
    told = {"return_line_items": [line("a")], "return_amounts": {"total_money": usd(1200), "tip_money": usd(200)}}
    partly = {**told, "return_tips": [{"uid": "t", "applied_money": usd(150)}]}
    for returns, tips in (([told], ["-2"]), ([partly], ["-1.5", "-0.5"])):
        rows = one(tmp_path / tips[0], {**order(total=0, returns=returns), "total_money": None})
        assert [row["total"] for row in rows if row["line_type"] == "tip"] == [Decimal(tip) for tip in tips]
        assert sum(row["total"] for row in rows) == -12
        (found,) = decode_page(
            json.dumps({"orders": [order(total=0, returns=returns, total_money=None)]}).encode()
        ).orders
        assert found.header is not None
        assert (found.header.total, found.header.currency) == (-1200, "USD")


PRICES: list[tuple[dict[str, Any], str]] = [
    # Included: two at 12.00 with 4.00 of tax in them; base_price_money has the tax in it.
    (line(amount=2400, quantity="2", base_price_money=usd(1200), total_tax_money=usd(400)), "10"),
    # Added to the price.
    (line(amount=1000, total_tax_money=usd(80), total_money=usd(1080)), "10"),
    # Told by the kinds of taxes; a third is not money: four decimals, half up.
    (
        line(
            amount=1000,
            quantity="3",
            base_price_money=usd(333),
            variation_total_price_money=usd(1000),
            total_tax_money=usd(91),
            applied_taxes=[{"tax_uid": "vat", "applied_money": usd(91)}],
        ),
        "3.0270",
    ),
    # Both kinds: only what is included comes off.
    (
        line(
            amount=1200,
            total_tax_money=usd(260),
            total_money=usd(1260),
            applied_taxes=[
                {"tax_uid": "vat", "applied_money": usd(200)},
                {"tax_uid": "city", "applied_money": usd(60)},
            ],
        ),
        "10",
    ),
    # Modifiers have their part of the tax.
    (
        line(
            amount=1500,
            base_price_money=usd(1200),
            modifiers=[{"quantity": "1", "total_price_money": usd(300)}],
            total_tax_money=usd(250),
        ),
        "10",
    ),
    # Given away: there is no tax in it.
    (line(amount=0, base_price_money=usd(1200), total_discount_money=usd(1200)), "12"),
]


def test_the_price_of_a_unit_is_without_the_tax_in_it(tmp_path: Path) -> None:
    kinds = [{"uid": "vat", "type": "INCLUSIVE"}, {"uid": "city", "type": "ADDITIVE"}]
    given = [
        {**order(sold, total=sold["total_money"]["amount"], taxes=kinds), "id": str(number)}
        for number, (sold, _) in enumerate(PRICES)
    ]
    rows, work = normalise(tmp_path, given)
    assert work.bad == []
    assert [row["unit_price"] for row in rows] == [Decimal(price) for _, price in PRICES]


def test_a_cancelled_order_leaves_its_lines_at_zero_and_an_open_one_nothing(tmp_path: Path) -> None:
    cancelled = order(
        line("a"), line("b"), total=2000, state="CANCELED", tenders=[{"type": "CASH", "amount_money": usd(5)}]
    )
    rows, work = normalise(
        tmp_path, [cancelled, order(line(), total=1000, state="OPEN"), order(line(), total=1, state="DRAFT")]
    )
    assert work.bad == []
    assert [r["kind"] for r in rows] == ["void", "void"]
    assert all(r[c.name] == 0 for r in rows for c in TRANSACTIONS if c.type in ("money", "quantity") and c.required)
    assert {r["due"] for r in rows} == {None}
    assert rows[0]["product_id"] == "VAR"
    assert next(iter(work.days.values())).lines == 0


def test_zero_and_three_decimal_currencies(tmp_path: Path) -> None:
    def priced(order_id: str, currency: str) -> dict[str, Any]:
        money = usd(12345, currency)
        return {
            **order(total=0),
            "id": order_id,
            "total_money": money,
            "line_items": [{"uid": "l", "quantity": "1", "total_money": money}],
        }

    rows, _ = normalise(tmp_path, [priced("y", "JPY"), priced("b", "BHD")])
    assert [(r["currency"], r["total"]) for r in rows] == [("JPY", Decimal(12345)), ("BHD", Decimal("12.345"))]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (order(line(), total=1001), "order O1: its rows add up to 10.0000 USD, but its own total is 10.0100 USD"),
        ({**order(line(), total=1000), "total_money": usd(1000, "XXX")}, "its currency XXX is not one"),
        ({**order(line(), total=1000), "total_money": usd(1000, "QQQ")}, "its currency QQQ is not one"),
        (order(line(quantity="a few"), total=1000), "a line has a quantity that is not a number"),
        (order(line(quantity="1.0000001"), total=1000), "a line has a quantity that is not a number"),
        (order(line("x"), line("x"), total=2000), "two of its lines have the same uid"),
        ({**order(line(), total=1000), "total_money": None}, "it has no total to check its rows against"),
        (order(total=0, tenders=[{"type": "CASH", "amount_money": usd(5)}]), "nothing was sold or returned"),
        (order(total=0, total_money=None, tenders=[tender(500)]), "nothing was sold or returned"),
        (
            order(total=0, total_money=None, refunds=[{"status": "APPROVED", "amount_money": usd(5)}]),
            "nothing was sold or returned",
        ),
        (
            order(line(), total=0, total_money=None, state="OPEN", tenders=[tender(1000)]),
            "it has payments, but no total that would tell whether it is paid",
        ),
        (order(total=5), "its rows add up to 0.0000 USD, but its own total is 0.0500 USD"),
        (
            {**order(line(), total=1000), "total_money": {"amount": "ten", "currency": "USD"}},
            "does not have the documented form",
        ),
        (
            b'{"id":"O1","location_id":"L1","state":"COMPLETED","ticket_name":"caf\xe9"}',
            "does not have the documented form",
        ),
        (b'{"id":"O1","line_items":{"uid":"not a list"}}', "does not have the documented form"),
    ],
)
def test_a_bad_order_goes_to_quarantine_whole_and_the_others_stay(
    bad: dict[str, Any] | bytes, reason: str, tmp_path: Path
) -> None:
    good = [{**order(line(), total=1000), "id": f"G{n}"} for n in range(5)]
    rows, work = normalise(tmp_path, [*good[:3], bad, *good[3:]])
    assert [row["order_id"] for row in rows] == [f"G{n}" for n in range(5)]
    (record,) = work.bad
    assert reason in record.reason
    assert record.payload == (bad if isinstance(bad, bytes) else json.dumps(bad).encode())
    assert record.order_id in ("O1", None)
    assert next(iter(work.days.values())).orders == 5
