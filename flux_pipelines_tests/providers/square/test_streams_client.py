"""The streams' client against scripted answers over real HTTP: what it asks for, and what it makes of every kind of answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from flux_pipelines.domain.errors import (
    BadResponseError,
    ConfigurationError,
    PermissionLostError,
    ProviderUnavailableError,
)
from flux_pipelines.providers.base import Window
from flux_pipelines.providers.square import PROVIDER
from flux_pipelines.providers.square.client import SquareClient
from flux_pipelines.providers.square.streams import STREAM_SCOPES
from flux_pipelines_tests.providers.squarewire import square

START = datetime(2026, 3, 2, 5, tzinfo=UTC)
END = START + timedelta(days=1)
WINDOW = Window(("L1", "L2"), START, END, date(2026, 3, 2))
ONE = Window(("L1",), START, END, date(2026, 3, 2))
DEAD = (400, {"errors": [{"category": "INVALID_REQUEST_ERROR", "code": "INVALID_CURSOR", "field": "cursor"}]})
FORBIDDEN = (403, {"errors": [{"category": "AUTHENTICATION_ERROR", "code": "INSUFFICIENT_SCOPES"}]})
PATHS = {
    "payments": "/v2/payments",
    "catalog": "/v2/catalog/search",
    "inventory": "/v2/inventory/counts/batch-retrieve",
    "labor": "/v2/labor/timecards/search",
}
ORDERS = "/v2/orders/batch-retrieve"
LOCATIONS = {"locations": [{"id": "L1", "name": "One"}, {"id": "L2", "name": "Two"}]}
Answer = tuple[int, Any]


class Wire:
    """Square, as a test scripts it: answers by path, one after the other, the last for ever; an empty object elsewhere."""

    def __init__(self, server: HTTPServer, folder: Path) -> None:
        self.url, self._folder = server.url_for(""), folder
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.scopes = [scope for scopes in STREAM_SCOPES.values() for scope in scopes]
        self.answers: dict[str, list[Answer]] = {"/v2/locations": [(200, LOCATIONS)]}
        server.expect_request("/oauth2/token/status").respond_with_handler(
            lambda _: self._json(200, {"scopes": self.scopes, "merchant_id": "M"})
        )
        server.expect_request("/v2/locations").respond_with_handler(self._handle)
        for path in (*PATHS.values(), ORDERS, "/v2/refunds", re.compile("^/v2/payments/.+")):
            server.expect_request(path).respond_with_handler(self._handle)

    @staticmethod
    def _json(status: int, body: Any) -> Response:
        text = body if isinstance(body, (str, bytes)) else json.dumps(body)
        return Response(text, status, content_type="application/json")

    def _handle(self, request: Request) -> Response:
        self.asked.append((request.path, dict(request.args) if request.method == "GET" else json.loads(request.data)))
        queue = self.answers.get(request.path, [(200, {})])
        return self._json(*(queue.pop(0) if len(queue) > 1 else queue[0]))

    def with_client(self, act: Callable[[SquareClient], Any]) -> Any:
        with square(self.url, self._folder) as client:
            return act(client)

    def read(self, stream: str, window: Window = WINDOW) -> list[tuple[str, str, str]]:
        """Kind, location and id of every record."""
        pages = self.with_client(lambda client: list(client.read(stream, window)))
        return [(one.kind, one.location_id, json.loads(bytes(one.raw)).get("id", "")) for page in pages for one in page]

    def changes(self, stream: str, window: Window = ONE) -> list[tuple[str, datetime]]:
        return list(self.with_client(lambda client: list(client.changes(stream, window))))

    def asked_of(self, path: str) -> list[dict[str, Any]]:
        return [asked for where, asked in self.asked if where == path]


@pytest.fixture
def wire(httpserver: HTTPServer, tmp_path: Path) -> Wire:
    return Wire(httpserver, tmp_path)


def stamp(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def paid(id_: str, at: datetime, **more: Any) -> dict[str, Any]:
    return {"id": id_, "location_id": "L1", "created_at": stamp(at), "updated_at": stamp(at), **more}


def test_payments_are_asked_for_location_by_location(wire: Wire) -> None:
    wire.answers["/v2/payments"] = [
        (200, {"payments": [paid("A", START)], "cursor": "next"}),
        (200, {"payments": [paid("B", START + timedelta(hours=2)), paid("at the end", END)]}),
        (200, {}),
    ]
    wire.answers["/v2/refunds"] = [(200, {"refunds": [paid("R", START)]}), (200, {})]
    assert wire.read("payments") == [("payment", "L1", "A"), ("payment", "L1", "B"), ("refund", "L1", "R")]
    first, second, offline, other, _ = wire.asked_of("/v2/payments")
    common = {"sort_order": "ASC", "location_id": "L1", "limit": "100"}
    span = {"begin_time": "2026-03-02T05:00:00Z", "end_time": "2026-03-03T05:00:00Z"}
    assert first == {**common, **span, "sort_field": "CREATED_AT"}
    assert second == {**first, "cursor": "next"}
    assert offline == {
        **common,
        "sort_field": "OFFLINE_CREATED_AT",
        "is_offline_payment": "true",
        "begin_time": "2026-03-01T05:00:00Z",
        "offline_begin_time": span["begin_time"],
        "offline_end_time": span["end_time"],
    }
    assert other == {**first, "location_id": "L2"}
    assert wire.asked_of("/v2/refunds") == [first, other]


def test_what_a_till_took_offline_is_of_the_day_of_the_till(wire: Wire) -> None:
    def offline(id_: str, created: datetime, taken: datetime) -> dict[str, Any]:
        return paid(id_, created, offline_payment_details={"client_created_at": stamp(taken)})

    yesterday, today, tomorrow = START - timedelta(hours=2), START + timedelta(hours=2), END + timedelta(hours=2)
    same = offline("same day", today, today - timedelta(hours=1))
    wire.answers["/v2/payments"] = [
        (200, {"payments": [paid("on time", today), offline("arrived today", today, yesterday), same]}),
        (200, {"payments": [same, offline("arrived tomorrow", tomorrow, today)]}),
    ]
    found = wire.read("payments", ONE)
    assert [id_ for _, _, id_ in found] == ["on time", "same day", "arrived tomorrow"], "each once"


def test_what_a_refund_gives_back_comes_along(wire: Wire) -> None:
    long_ago = START - timedelta(days=60)
    gave_back = {
        # refund: its payment, and the order it is of
        "R1": ("OLD", "return"),
        "R2": ("OLD", "return"),
        "R3": ("TODAY", "return of today"),
        "R4": ("DIRECT", "sale"),
        "R5": ("UNTOLD", "of nothing"),
        "R6": ("GONE", "gone"),
        "R7": (None, "unlinked"),
        "R8": ("a/b", None),
        "R9": ("SPOILT", "spoilt"),
    }
    orders = [
        {"id": "return", "returns": [{"source_order_id": "first"}, {"source_order_id": "second"}, {}]},
        {"id": "sale", "tenders": [{"id": "another"}, {"id": "DIRECT", "type": "CASH"}]},
        {"id": "of nothing", "returns": [{"return_line_items": []}]},
        {"id": "spoilt", "tenders": "many"},
    ]
    sources = [{"id": "first"}, {"id": "second", "tenders": [{"id": "OLD", "type": "CARD"}]}]
    wire.answers["/v2/payments"] = [(200, {"payments": [paid("TODAY", START)]}), (200, {})]
    refunds = [paid(id_, START, payment_id=of, order_id=order) for id_, (of, order) in gave_back.items()]
    wire.answers["/v2/refunds"] = [(200, {"refunds": refunds})]
    wire.answers[ORDERS] = [(500, {}), (200, {"orders": orders}), (200, {"orders": sources})]
    for id_ in ("UNTOLD", "a/b", "SPOILT"):
        wire.answers[f"/v2/payments/{id_}"] = [(500, {}), (200, {"payment": paid(id_, long_ago)})]
    wire.answers["/v2/payments/GONE"] = [
        (404, {"errors": [{"category": "INVALID_REQUEST_ERROR", "code": "NOT_FOUND"}]})
    ]
    found = wire.read("payments", ONE)
    assert [id_ for kind, _, id_ in found if kind == "refund"] == list(gave_back)
    assert [one for one in found if one[0] not in ("payment", "refund")] == [
        ("refunded_tender", "L1", "DIRECT"),
        ("refunded_tender", "L1", "OLD"),
        ("refunded_payment", "L1", "UNTOLD"),
        ("refunded_payment", "L1", "a/b"),
        ("refunded_payment", "L1", "SPOILT"),
    ]
    asked = [one["order_ids"] for one in wire.asked_of(ORDERS)]
    assert asked == [["return", "sale", "of nothing", "gone", "spoilt"]] * 2 + [["first", "second"]]
    single = [path.rpartition("payments/")[2] for path, _ in wire.asked if path.startswith("/v2/payments/")]
    assert single == ["UNTOLD"] * 2 + ["GONE"] + ["a/b"] * 2 + ["SPOILT"] * 2


def test_orders_of_refunds_are_asked_for_a_hundred_at_a_time(wire: Wire) -> None:
    refunds = [paid(f"R{n}", START, payment_id=f"P{n}", order_id=f"O{n}") for n in range(201)]
    wire.answers["/v2/refunds"] = [(200, {"refunds": refunds})]
    tenders = [{"id": f"O{n}", "tenders": [{"id": f"P{n}"}]} for n in range(201)]
    wire.answers[ORDERS] = [(200, {"orders": tenders[n : n + 100]}) for n in (0, 100, 200)]
    found = wire.read("payments", ONE)
    assert [id_ for kind, _, id_ in found if kind == "refunded_tender"] == [f"P{n}" for n in range(201)]
    assert [len(one["order_ids"]) for one in wire.asked_of(ORDERS)] == [100, 100, 1]
    assert not [path for path, _ in wire.asked if path.startswith("/v2/payments/")]


@pytest.mark.parametrize("path", [ORDERS, "/v2/payments/OLD"])
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((500, {}), ProviderUnavailableError),
        ((200, {"payments": [], "errors": [{"code": "x"}]}), BadResponseError),
        (FORBIDDEN, PermissionLostError),
    ],
)
def test_what_a_refund_gives_back_is_not_left_out_when_it_cannot_be_had(
    path: str, answer: Answer, error: type[Exception], wire: Wire
) -> None:
    wire.answers["/v2/refunds"] = [(200, {"refunds": [paid("R", START, payment_id="OLD", order_id="O")]})]
    wire.answers[path] = [answer]
    with pytest.raises(error):
        wire.read("payments", ONE)


def test_payments_that_changed(wire: Wire) -> None:
    late = END + timedelta(hours=1)
    sold = START - timedelta(days=40)
    wire.answers["/v2/payments"] = [
        (200, {"payments": [paid("A", sold, updated_at=stamp(START)), paid("later", sold, updated_at=stamp(END))]})
    ]
    wire.answers["/v2/refunds"] = [(200, {"refunds": [paid("R", START), paid("late", START, updated_at=stamp(late))]})]
    assert wire.changes("payments") == [("L1", sold), ("L1", START)]
    (asked,) = wire.asked_of("/v2/payments")
    assert asked == {
        "updated_at_begin_time": "2026-03-02T05:00:00Z",
        "updated_at_end_time": "2026-03-03T05:00:00Z",
        "sort_field": "UPDATED_AT",
        "sort_order": "ASC",
        "location_id": "L1",
        "limit": "100",
    }


def test_the_whole_catalog_with_what_was_deleted(wire: Wire) -> None:
    def thing(type_: str, id_: str, version: int = 1) -> dict[str, Any]:
        return {"type": type_, "id": id_, "version": version}

    category = thing("CATEGORY", "C")
    wire.answers["/v2/catalog/search"] = [
        (200, {"objects": [thing("ITEM", "I")], "related_objects": [category], "cursor": "more"}),
        (200, {"objects": [thing("ITEM_VARIATION", "V"), thing("ITEM", "I", 2)], "related_objects": [category]}),
    ]
    assert wire.read("catalog") == [
        ("location", "L1", "L1"),
        ("location", "L2", "L2"),
        ("item", "", "I"),
        ("category", "", "C"),
        ("item_variation", "", "V"),
        ("item", "", "I"),  # changed while it was read
    ]
    first, second = wire.asked_of("/v2/catalog/search")
    assert first == {
        "object_types": ["ITEM", "ITEM_VARIATION", "CATEGORY"],
        "include_deleted_objects": True,
        "include_related_objects": True,
        "limit": 1000,
    }
    assert second == {**first, "cursor": "more"}


def test_counts_and_timecards(wire: Wire) -> None:
    count = {"catalog_object_id": "V", "location_id": "L1", "quantity": "3"}
    wire.answers[PATHS["inventory"]] = [
        (200, {"counts": [count], "errors": [], "cursor": "more"}),
        (200, {"counts": [{**count, "location_id": None}]}),
        (200, {}),
    ]
    assert wire.read("inventory") == [("count", "L1", ""), ("count", "L1", "")]
    assert [
        (a["location_ids"], a["states"], a["limit"], a.get("cursor")) for a in wire.asked_of(PATHS["inventory"])
    ] == [
        (["L1"], ["IN_STOCK"], 1000, None),
        (["L1"], ["IN_STOCK"], 1000, "more"),
        (["L2"], ["IN_STOCK"], 1000, None),
    ]
    worked = {"id": "T", "location_id": "L2", "start_at": "2026-03-02T00:00:00-05:00", "created_at": stamp(END)}
    end = {**worked, "id": "next day", "start_at": "2026-03-03T00:00:00-05:00"}
    wire.answers[PATHS["labor"]] = [(200, {"timecards": [worked, end]})]
    assert wire.read("labor") == [("time_entry", "L2", "T")]
    assert wire.asked_of(PATHS["labor"]) == [
        {
            "query": {
                "filter": {
                    "location_ids": ["L1", "L2"],
                    "start": {"start_at": "2026-03-02T05:00:00Z", "end_at": "2026-03-03T05:00:00Z"},
                },
                "sort": {"field": "START_AT", "order": "ASC"},
            },
            "limit": 200,
        }
    ]


def test_variations_that_are_marked_as_sold_out_come_with_the_counts(wire: Wire) -> None:
    def variation(id_: str, **data: Any) -> dict[str, Any]:
        return {"type": "ITEM_VARIATION", "id": id_, "item_variation_data": data}

    out = {"location_overrides": [{"location_id": "L1"}, {"location_id": "L2", "sold_out": True}]}
    objects = [variation("OUT", **out), variation("IN", location_overrides=[{"sold_out": False}]), variation("NEVER")]
    wire.answers["/v2/catalog/search"] = [(200, {"objects": objects, "cursor": "c"}), (200, {"objects": objects[:1]})]
    found = wire.read("inventory")
    assert found == [("sold_out", "", "OUT")] * 2, "twice at most where pages shift: the SQL counts it once"
    first, second = wire.asked_of("/v2/catalog/search")
    assert first == {"object_types": ["ITEM_VARIATION"], "limit": 1000}
    assert second == {**first, "cursor": "c"}

    wire.answers["/v2/catalog/search"] = [FORBIDDEN]
    wire.answers["/v2/inventory/counts/batch-retrieve"] = [(200, {"counts": [{"catalog_object_id": "A"}]}), (200, {})]
    with pytest.raises(PermissionLostError):
        wire.read("inventory")
    wire.scopes.remove("ITEMS_READ")
    wire.answers["/v2/inventory/counts/batch-retrieve"] = [(200, {"counts": [{"catalog_object_id": "A"}]}), (200, {})]
    assert wire.read("inventory") == [("count", "L1", "")], "the counts need no more than their own permission"


def test_timecards_that_changed_are_read_newest_first_until_the_window(wire: Wire) -> None:
    def card(id_: str, updated: datetime) -> dict[str, Any]:
        return {
            "id": id_,
            "location_id": "L1",
            "start_at": stamp(START - timedelta(days=9)),
            "updated_at": stamp(updated),
        }

    wire.answers[PATHS["labor"]] = [
        (200, {"timecards": [card("too new", END), card("A", END - timedelta(hours=1))], "cursor": "1"}),
        (200, {"timecards": [card("B", START), card("too old", START - timedelta(hours=1))], "cursor": "2"}),
        (200, {"timecards": [card("never read", START)]}),
    ]
    assert wire.changes("labor") == [("L1", START - timedelta(days=9))] * 2
    assert [asked["query"]["sort"] for asked in wire.asked_of(PATHS["labor"])] == [
        {"field": "UPDATED_AT", "order": "DESC"}
    ] * 2


def test_dead_cursors_start_again_where_the_list_was(wire: Wire) -> None:
    seen = START + timedelta(hours=5)
    wire.answers["/v2/payments"] = [
        (200, {"payments": [paid("A", START), paid("B", seen)], "cursor": "dies"}),
        DEAD,
        (200, {"payments": [paid("B", seen), paid("C", END - timedelta(hours=1))]}),
        (200, {}),
    ]
    assert [id_ for _, _, id_ in wire.read("payments", ONE)] == ["A", "B", "C"]
    assert [asked["begin_time"] for asked in wire.asked_of("/v2/payments")][:3] == [
        "2026-03-02T05:00:00Z",
        "2026-03-02T05:00:00Z",
        "2026-03-02T10:00:00Z",
    ]
    # A list without an order of its own starts as a whole.
    wire.answers[PATHS["inventory"]] = [(200, {"counts": [{"quantity": "1"}], "cursor": "dies"}), DEAD, (200, {})]
    assert len(wire.read("inventory", ONE)) == 1
    assert [asked.get("cursor") for asked in wire.asked_of(PATHS["inventory"])] == [None, "dies", None]


def test_cursors_that_always_die_are_an_error(wire: Wire) -> None:
    wire.answers["/v2/payments"] = [(200, {"payments": [paid("A", START)], "cursor": "dies"}), DEAD] * 12
    with pytest.raises(ProviderUnavailableError, match="cursors die"):
        wire.read("payments", ONE)


@pytest.mark.parametrize("stream", PATHS)
def test_a_missing_permission_is_named_with_what_to_do(stream: str, wire: Wire) -> None:
    wire.answers[PATHS[stream]] = [FORBIDDEN]
    with pytest.raises(PermissionLostError) as lost:
        wire.read(stream)
    assert STREAM_SCOPES[stream][0] in str(lost.value)
    assert "INSUFFICIENT_SCOPES" in str(lost.value)
    assert "Connect the account again" in str(lost.value)
    if stream in ("payments", "labor"):
        with pytest.raises(PermissionLostError, match=STREAM_SCOPES[stream][0]):
            wire.changes(stream)


@pytest.mark.parametrize("stream", ["payments", "inventory", "labor"])
def test_nothing_is_only_nothing_where_it_may_be_read(stream: str, wire: Wire) -> None:
    assert wire.read(stream) == []
    wire.scopes.remove(STREAM_SCOPES[stream][0])
    with pytest.raises(PermissionLostError, match=STREAM_SCOPES[stream][0]):
        wire.read(stream)


@pytest.mark.parametrize("stream", PATHS)
@pytest.mark.parametrize(
    "body",
    ['{"errors": [{"code": "INTERNAL_SERVER_ERROR"}]}', "", "[]", "null", '{"cursor": 3}', "<html></html>", '{"pay'],
)
def test_a_damaged_answer_is_never_an_empty_one(stream: str, body: str, wire: Wire) -> None:
    wire.answers[PATHS[stream]] = [(200, body)]
    with pytest.raises(BadResponseError):
        wire.read(stream)


def test_a_merchant_without_locations_is_a_damaged_answer(wire: Wire) -> None:
    wire.answers["/v2/locations"] = [(200, {})]
    with pytest.raises(BadResponseError):
        wire.read("catalog")


def test_what_cannot_be_read_is_kept_as_it_is(wire: Wire) -> None:
    odd = ['{"id":"O","created_at":"yesterday","amount_money":{"amount":1e3}}', '{"id":7}', '"text"']
    wire.answers["/v2/payments"] = [(200, '{"payments":[' + ",".join(odd) + "]}"), (200, {})]
    pages = wire.with_client(lambda client: list(client.read("payments", ONE)))
    assert [(one.location_id, bytes(one.raw).decode()) for page in pages for one in page] == [
        ("L1", raw) for raw in odd
    ]


def test_every_feed_declares_its_permissions() -> None:
    # Without the permission to read reports there is no witness, which is no failure of a stream.
    assert (
        {stream.name for stream in PROVIDER.streams} - {"orders", "reported_sales"}
        == STREAM_SCOPES.keys()
        == PATHS.keys()
    )
    assert {scope for scopes in STREAM_SCOPES.values() for scope in scopes} <= set(PROVIDER.scopes)


def test_a_feed_that_is_not_there(wire: Wire) -> None:
    with pytest.raises(ConfigurationError, match="loyalty"):
        wire.read("loyalty")
    with pytest.raises(ConfigurationError, match="inventory"):
        wire.changes("inventory")
