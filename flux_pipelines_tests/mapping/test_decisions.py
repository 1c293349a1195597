"""The mapping tables over a real lake and state database, through the assets and the command line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from flux_pipelines.cli import app
from flux_pipelines.defs.assets import mapping
from flux_pipelines.defs.resources import bound_resource
from flux_pipelines.domain.tables import DAILY_ITEM_DEMAND, LOCATIONS, PRODUCTS, Table
from flux_pipelines.mapping import decisions
from flux_pipelines.mapping.matching import Key
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import Settings

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CAFE, KITCHEN, OTHER = "square:cafe", "toast:kitchen", "square:elsewhere"


def product(connection: str, id_: str, name: str, variation: str | None = None, **more: Any) -> dict[str, Any]:
    tenant = "elsewhere" if connection == OTHER else "harbor"
    row: dict[str, Any] = dict.fromkeys(PRODUCTS.column_names)
    return row | {"connection": connection, "tenant": tenant, "product_id": id_, "product_name": name,
                  "variation": variation, "active": True, "valid_from": NOW, "source_system": "x",
                  "source_version": "1"} | more  # fmt: skip


def location(connection: str, id_: str, name: str, zone: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(LOCATIONS.column_names)
    return row | {"connection": connection, "tenant": "harbor", "location_id": id_, "name": name, "timezone": zone,
                  "currency": "USD", "cutoff_hour": 0, "active": True, "source_system": "x",
                  "source_version": "1"}  # fmt: skip


def put(runtime: Runtime, table: Table, rows: list[dict[str, Any]]) -> None:
    data = pa.Table.from_pylist(rows, schema=table.arrow_schema())
    parts = [dict(key) for key in {tuple((name, row[name]) for name in table.partition_by) for row in rows}]
    runtime.lake.replace(table, pa.RecordBatchReader.from_batches(data.schema, data.to_batches()), parts)


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    monkeypatch.setenv("FLUX_HOME", str(tmp_path / "home"))
    with Runtime(Settings()) as opened:
        put(opened, PRODUCTS, [
            product(CAFE, "P1", "Latte", "Large"),
            product(CAFE, "P2", "Harbor Mug", "White", upc="123"),
            product(CAFE, "P2", "Old mug", valid_from=datetime(2026, 1, 1, tzinfo=UTC), valid_to=NOW),
            product(KITCHEN, "T1", "Large Latte"),
            product(KITCHEN, "T2", "Mug", upc="0123"),
            product(KITCHEN, "T3", "Ramen"),
            product(OTHER, "E1", "Latte", "Large"),
        ])  # fmt: skip
        put(opened, LOCATIONS, [
            location(CAFE, "L1", "Navy Pier", "America/Chicago"),
            location(KITCHEN, "R1", "Harbor Kitchen Navy Pier", "America/Chicago"),
            location(KITCHEN, "R2", "Navy Pier", "America/Chicago"),
        ])  # fmt: skip
        sold: dict[str, Any] = dict.fromkeys(DAILY_ITEM_DEMAND.column_names)
        put(opened, DAILY_ITEM_DEMAND, [
            sold | {"connection": CAFE, "tenant": "harbor", "location_id": "L1", "business_date": date(2026, 3, 1),
                    "product_id": id_, "product_name": name, "currency": "USD", "quantity": Decimal(1),
                    "net": Decimal(4)} for id_, name in (("P1", "Latte"), ("name:Catering|", "Catering"))
        ])  # fmt: skip
        yield opened


def named(runtime: Runtime, kind: Any = "product") -> dict[str, tuple[str | None, str | None]]:
    return {
        r.thing.key.id: (r.name, r.suggestion.name if r.suggestion else None) for r in decisions.rows(runtime, kind)
    }


def test_products_of_one_customer_are_suggested_and_people_decide(runtime: Runtime) -> None:
    found = named(runtime)
    assert found == {
        "P1": (None, "Latte Large"),
        "P2": (None, "Harbor Mug White"),
        "T1": (None, "Latte Large"),
        "T2": (None, "Harbor Mug White"),
        "T3": (None, None),
        "E1": (None, None),  # of another customer: their books are never mixed
        "name:Catering|": (None, None),  # sold and in no catalog: there all the same
    }
    decisions.confirm(runtime, "product", [(Key(CAFE, "P1"), "House latte")], by="ada")
    assert named(runtime)["P1"] == ("House latte", None)
    assert named(runtime)["T1"] == (None, "House latte")
    decisions.refuse(runtime, "product", Key(KITCHEN, "T1"), by="ada")
    assert named(runtime)["T1"] == (None, None)
    decisions.take_back(runtime, "product", Key(CAFE, "P1"), by="ada")
    assert named(runtime)["T1"] == (None, "Latte Large")
    assert named(runtime, "store")["R2"] == (None, "Navy Pier")


def test_the_tables_hold_everything_and_the_check_says_what_is_left(runtime: Runtime) -> None:
    decisions.confirm(runtime, "product", [(Key(CAFE, "P2"), None), (Key(KITCHEN, "T2"), None)], by="ada")
    assets = mapping.mapping_assets()
    result = dg.materialize(
        assets, resources={"flux": bound_resource(runtime, None)}, instance=dg.DagsterInstance.ephemeral()
    )
    assert result.success
    checks = {c.asset_key.to_user_string(): c for c in result.get_asset_check_evaluations()}
    assert not checks["product_map"].passed
    from flux_pipelines.lake import session

    with session(runtime.lake, ["product_map", "stores"]) as database:
        rows = database.execute("select product_id, canonical_product, decided_by from product_map").fetchall()
        assert len(rows) == 7
        assert {row for row in rows if row[1]} == {("P2", "Harbor Mug White", "ada"), ("T2", "Harbor Mug White", "ada")}
        assert database.execute("select count(*) from stores").fetchall() == [(3,)]


def test_a_reviewed_spreadsheet_comes_back(runtime: Runtime, tmp_path: Path) -> None:
    run = CliRunner()
    file = tmp_path / "review.csv"
    assert run.invoke(app, ["map", "export", "products", str(file)]).exit_code == 0
    with file.open(newline="", encoding="utf-8-sig") as source:
        rows = list(csv.DictReader(source))
    assert {row["id"] for row in rows} == set(named(runtime))
    for row in rows:
        row["name"] = "Latte" if row["suggestion"] == "Latte Large" else ""
    with file.open("w", newline="", encoding="utf-8-sig") as out:
        writer = csv.DictWriter(out, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    done = run.invoke(app, ["map", "import", "products", str(file), "--by", "ben"])
    assert done.exit_code == 0, done.output
    assert "2 products decided" in done.output
    assert {id_ for id_, (name, _) in named(runtime).items() if name == "Latte"} == {"P1", "T1"}
    sure = run.invoke(app, ["map", "confirm", "products", "--above", "0.95"])
    assert "2 products decided" in sure.output
    listed = run.invoke(app, ["map", "list", "stores", "--undecided"], env={"COLUMNS": "200"})
    assert "3 stores: 0 decided, 2 with a suggestion, 1 unlike all others." in listed.output
    assert run.invoke(app, ["map", "confirm", "products", CAFE]).exit_code != 0
    assert run.invoke(app, ["map", "reject", "products", CAFE, "nothing"]).exit_code != 0


def test_it_is_written_anew_after_a_decision(runtime: Runtime) -> None:
    sensor = mapping.decisions_sensor(mapping.mapping_job())
    with dg.DagsterInstance.ephemeral() as instance:

        def tick(cursor: str | None) -> Any:
            with dg.build_sensor_context(
                instance=instance, cursor=cursor, resources={"flux": bound_resource(runtime, None)}
            ) as context:
                return list(sensor(context)), context.cursor  # type: ignore[call-overload]

        (first,), cursor = tick(None)
        assert isinstance(first, dg.RunRequest)
        (again,), cursor = tick(cursor)
        assert isinstance(again, dg.SkipReason)
        decisions.confirm(runtime, "product", [(Key(CAFE, "P1"), None)], by="ada")
        (third,), _ = tick(cursor)
        assert isinstance(third, dg.RunRequest)
