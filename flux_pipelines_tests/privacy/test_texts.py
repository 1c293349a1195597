"""Who asks to be forgotten, and stands in the name of an item: out of tables, their history and previews too, however it is written."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest

from flux_pipelines.connections import connect_to_sandbox
from flux_pipelines.defs.code_location import build_definitions
from flux_pipelines.defs.driver import dagster_home
from flux_pipelines.defs.erasures import forget
from flux_pipelines.defs.metadata import preview
from flux_pipelines.defs.runner import sync
from flux_pipelines.erasure import Wanted
from flux_pipelines.lake import session
from flux_pipelines.privacy import Pseudonyms
from flux_pipelines.providers.base import Erasure
from flux_pipelines.providers.square.privacy import REDACTION
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import settings
from flux_pipelines_tests.privacy.test_nothing_personal import files
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

KEY = "square:sakura"
PERSON = "Zoë Müller"
END_DAY = date(2026, 3, 10)
SPELLINGS = (
    f"Cake for {PERSON}",
    unicodedata.normalize("NFD", f"Torte, {PERSON.upper()}"),
)


def spelled(person: str) -> list[bytes]:
    """Return JSON of records that name somebody, each in another way."""
    composed, decomposed = (unicodedata.normalize(form, person) for form in ("NFC", "NFD"))
    names = [one for form in (composed, decomposed) for one in (form, form.upper(), form.casefold(), f"for {form}!")]
    texts = [json.dumps(one, ensure_ascii=escaped) for one in names for escaped in (True, False)]
    texts += ['"' + "".join(f"\\u{ord(letter):04X}" for letter in composed) + '"']
    return [b'{"id":"%d","name":%b,"amount":1.10}' % (n, text.encode()) for n, text in enumerate(texts)]


@pytest.mark.parametrize("person", [PERSON, "ada@example.com", "Ada/Grace Ångström"])
@pytest.mark.parametrize("thorough", [True, False])
def test_a_text_is_found_however_it_is_written(person: str, thorough: bool) -> None:
    records = [record.replace(b"/", b"\\/") for record in spelled(person)] + spelled(person)
    wanted = Wanted(Erasure(texts=(person,)), REDACTION, Pseudonyms(b"k" * 32))
    other = b'{"id":"x","name":"Ada Grace Museum","amount":1.10}'
    *erased, same = wanted.erased([*records, other], thorough=thorough)
    assert [json.loads(record)["name"] for record in erased] == ["erased"] * len(records)
    assert all(record.endswith(b'"amount":1.10}') for record in erased)
    assert same is other


@pytest.mark.parametrize("person", ["ada@example.com", "Ada_*Lovelace*", "A|da ~ [Love] \\ lace"])
def test_a_text_is_found_in_a_preview_which_writes_it_so_that_no_markup_comes_of_it(person: str) -> None:
    wanted = Wanted(Erasure(texts=(person,)), REDACTION, Pseudonyms(b"k" * 32))
    shown = preview(("order", "product"), [("1", person), ("2", "Latte *large*")]).md_str
    assert person not in shown
    assert wanted.may_be_in(json.dumps({"md_str": shown}).encode())
    assert not wanted.may_be_in(json.dumps({"md_str": shown.splitlines()[-1]}).encode())
    assert wanted.without(shown).splitlines()[2:] == ["erased", "| 2 | Latte \\*large\\* |"]


def test_a_number_of_a_phone_is_found_within_a_text_and_amounts_are_none() -> None:
    wanted = Wanted(Erasure(texts=("+1 (555) 625-1199",)), REDACTION, Pseudonyms(b"k" * 32))
    named, amount = b'{"name":"call 1 555.625.1199"}', b'{"amount":15556251199,"name":"x15556251199000"}'
    assert wanted.erased([named, amount], thorough=False) == [b'{"name":"erased"}', amount]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """A home in which everything was made of sales of items that are named after somebody."""
    with (
        RunningSandbox(SandboxOptions(seed=11, end_day=END_DAY, history_days=4, rate_limit=1_000_000)) as sandbox,
        pytest.MonkeyPatch.context() as patch,
    ):
        merchant = sandbox.world.merchant("sakura")
        items = dict(zip(merchant.items, SPELLINGS, strict=False))
        for item, name in items.items():  # as the catalog has it, and as it was sold
            object.__setattr__(item, "name", name)
        for sale in sandbox.world.sales.values():
            sale.lines = tuple(
                # Typed in at the counter, it is known by its name alone.
                line._replace(name=SPELLINGS[n % 2], item=None if n % 3 else line.item)
                if line.kind == "ITEM" and n < 2
                else line
                for n, line in enumerate(sale.lines)
            )
        patch.setenv("FLUX_HOME", str(tmp_path_factory.mktemp("texts") / "home"))
        patch.setenv("FLUX_START_DATE", "2026-03-01")
        settings.cache_clear()
        with Runtime() as opened:
            connect_to_sandbox(opened, KEY, tenant="sakura", url=sandbox.url)
            report = sync(opened, [KEY], [END_DAY - timedelta(days=n) for n in (1, 0)])
            assert report.failures == []
            yield opened
    settings.cache_clear()


def naming(runtime: Runtime) -> list[Path]:
    """Return the files of a home that name the person, in any way that the sandbox writes it."""
    ways = {form for name in SPELLINGS for form in (name, json.dumps(name)[1:-1])}
    return [path for path, data in files(runtime) if any(way.encode() in data for way in ways)]


def figures(runtime: Runtime) -> list[object]:
    with session(runtime.lake) as database:
        return [
            database.execute(query).fetchall()
            for query in (
                "select business_date, count(*), sum(quantity), sum(net) from transactions group by 1 order by 1",
                "select business_date, sum(quantity) from daily_item_demand group by 1 order by 1",
                "select * from daily_sales order by all",
                "select as_of, count(*) from demand_forecasts group by 1 order by 1",
            )
        ]


def test_who_stands_in_the_name_of_an_item_is_forgotten_in_tables_history_and_previews(runtime: Runtime) -> None:
    connection = runtime.state.connections.get(KEY)
    runtime.state.mappings.decide("product", [(KEY, "X", SPELLINGS[0])], by="tests")
    before = figures(runtime)
    places = {str(path.relative_to(runtime.settings.home)) for path in naming(runtime)}
    for place in (
        "lake/raw",
        "lake/tables/square/transactions",
        "lake/tables/transactions",
        "lake/tables/daily_item_demand",
    ):
        assert any(one.startswith(place) for one in places), place
    for place in ("lake/tables/demand_forecasts", "lake/tables/products", "dagster/history", "state.db"):
        assert any(one.startswith(place) for one in places), place
    report = forget(runtime, connection, Erasure(texts=(PERSON,)), build_definitions, asked_by="tests")
    assert report.records > 10
    assert naming(runtime) == []
    assert figures(runtime) == before, "the books stay"
    again = forget(runtime, connection, Erasure(texts=(PERSON,)), build_definitions, asked_by="tests")
    assert (again.partitions, again.records, again.events) == (0, 0, 0)
    with dg.DagsterInstance.from_config(str(dagster_home(runtime.settings))) as instance:
        assert instance.get_latest_materialization_event(dg.AssetKey("transactions")) is not None
