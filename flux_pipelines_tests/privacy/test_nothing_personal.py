"""After syncs through real assets, no file of the home holds anything about anybody; and who asks is forgotten."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pyarrow.parquet as pq
import pytest
import zstandard

from flux_pipelines.connections import connect_to_sandbox
from flux_pipelines.defs.code_location import build_definitions
from flux_pipelines.defs.driver import dagster_home
from flux_pipelines.defs.names import RANGE_END, RANGE_START
from flux_pipelines.defs.resources import bound_resource
from flux_pipelines.domain.errors import ConfigurationError, TableDamagedError
from flux_pipelines.domain.partition import Partition
from flux_pipelines.erasure import erase
from flux_pipelines.providers.base import Erasure
from flux_pipelines.runtime import Runtime
from flux_pipelines.settings import settings
from flux_pipelines.sync.records import BadRecord
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

PARTITION = "dagster/partition"
END_DAY = date(2026, 3, 10)
DAYS = (date(2026, 3, 8), date(2026, 3, 9))
KEY, KEEPER = "square:harbor", "square:fjord"
#: What is synced of each connection: its days, then what there is of it by connection alone.
JOBS = {
    KEY: ("sync_square", "collect_square", "catalog_square"),
    "toast:harbor-kitchen": ("sync_toast", "collect_toast", "catalog_toast"),
    "shopify:harbor-shop": ("sync_shopify", "catalog_shopify"),
}
#: Members that hold a few digits of a card: four digits alone are in many an id.
CARD_MEMBERS = re.compile(rb'"(?:last_?4\w*|bin|card_bin|first6\w*|number)"\s*:\s*"[^"]*\d[^"]*"', re.IGNORECASE)


def run(runtime: Runtime, job: str, key: str) -> None:
    with dg.DagsterInstance.from_config(str(dagster_home(runtime.settings))) as instance:
        instance.add_dynamic_partitions(f"{key.partition(':')[0]}_connections", [key])
        tags = (
            {PARTITION: key}
            if job.startswith("catalog_")
            else {RANGE_START: str(Partition(key, DAYS[0])), RANGE_END: str(Partition(key, DAYS[-1]))}
        )
        definitions = build_definitions({"flux": bound_resource(runtime)})
        result = definitions.resolve_job_def(job).execute_in_process(instance=instance, tags=tags, raise_on_error=False)
        assert result.success, [event for event in result.all_events if event.is_failure]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with RunningSandbox(SandboxOptions(seed=11, end_day=END_DAY, history_days=4, rate_limit=1_000_000)) as running:
        yield running


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox) -> Iterator[Runtime]:
    """A home with a merchant of each provider, and a record among theirs that cannot be used."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLUX_HOME", str(tmp_path_factory.mktemp("privacy") / "home"))
        patch.setenv("FLUX_START_DATE", "2026-03-01")
        settings.cache_clear()
        with Runtime() as opened:
            malform(sandbox)
            for key, jobs in JOBS.items():
                more = {"requests_per_minute": 100_000} if key == KEY else {}
                connect_to_sandbox(opened, key, tenant="harbor", url=sandbox.url, settings=more)
                for job in jobs:
                    run(opened, job, key)
            yield opened
    settings.cache_clear()


def malform(sandbox: RunningSandbox) -> None:
    """Spoil three sales to customers of Square's: before they land, or when they are read, they go to quarantine."""
    world = sandbox.world
    ids = [location.id for location in world.merchant("harbor").locations]
    noon = int(datetime.combine(DAYS[0], time(18), UTC).timestamp() * 1000)
    sold = [sale for _, sale in world.between(ids, "created", noon, noon + 86_400_000) if sale.customer and sale.lines]
    for sale, kind in zip(sold, ("types", "totals", "currency"), strict=False):
        sale.corrupt = kind


@pytest.fixture(scope="module")
def keeper(runtime: Runtime, sandbox: RunningSandbox) -> str:
    """The connection that keeps personal data."""
    more: dict[str, Any] = {"requests_per_minute": 100_000, "keep_personal_data": 1}
    connect_to_sandbox(runtime, KEEPER, tenant="fjord", url=sandbox.url, settings=more)
    run(runtime, "sync_square", KEEPER)
    return KEEPER


def people(sandbox: RunningSandbox, merchant: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = httpx.get(f"{sandbox.url}/sandbox/people", params={"merchant": merchant}).json()
    return found


def contents(path: Path) -> bytes:
    """What a file says, unpacked."""
    if path.suffix == ".zst":
        with path.open("rb") as file:
            return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()
    if path.suffix == ".parquet":
        return json.dumps(pq.read_table(path).to_pylist(), default=str, ensure_ascii=False).encode()
    return path.read_bytes()


def files(runtime: Runtime, folder: str = "") -> Iterator[tuple[Path, bytes]]:
    for path in sorted((runtime.settings.home / folder).rglob("*")):
        if path.is_file():
            yield path, contents(path)


def raw_lines(runtime: Runtime, key: str) -> list[bytes]:
    provider, _, name = key.partition(":")
    lines: list[bytes] = []
    for path, data in files(runtime, f"lake/raw/{provider}"):
        if path.suffix == ".zst" and f"/{name}/" in str(path):
            lines += data.splitlines()
    return lines


def test_no_file_holds_anything_about_anybody(runtime: Runtime, sandbox: RunningSandbox) -> None:
    persons = [people(sandbox, key.partition(":")[2]) for key in JOBS]
    texts = {text for one in persons for kind in ("names", "emails", "phones", "streets") for text in one[kind]}
    assert len(texts) > 100
    wanted = [text.lower().encode() for text in texts]
    # What the provider tells is full of them.
    token = httpx.post(f"{sandbox.url}/sandbox/tokens", json={"merchant": "harbor"}).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    locations = httpx.get(f"{sandbox.url}/v2/locations", headers=headers).json()["locations"]
    ids = [one["id"] for one in locations][:10]
    told = httpx.post(
        f"{sandbox.url}/v2/orders/search", headers=headers, json={"location_ids": ids, "limit": 500}
    ).content
    assert any(text in told.lower() for text in wanted)
    assert CARD_MEMBERS.search(told)
    searched = 0
    for path, data in files(runtime):
        searched += 1
        lower = data.lower()
        assert [text for text in wanted if text in lower] == [], path
        card = CARD_MEMBERS.search(data)
        assert card is None, f"{path} holds {card and card[0]!r}"
    lines = raw_lines(runtime, KEY)
    assert searched > 20
    assert len(lines) > 500
    assert any(b'"hmac:' in line for line in lines), "customers can still be told apart"
    quarantined = runtime.quarantine.list(connection=KEY)
    assert len(quarantined) == 3
    assert any("hmac:" in row["payload"] for row in quarantined)
    for key in JOBS:
        assert raw_lines(runtime, key), key
        for stream in runtime.raw.streams(key.partition(":")[0]):
            for manifest in runtime.raw.of(stream).everything(key).readable:
                assert manifest.redacted, (key, stream)


def test_all_but_personal_data_is_as_it_was_received(runtime: Runtime, sandbox: RunningSandbox) -> None:
    redactor = runtime.redactor(runtime.state.connections.get(KEY))
    assert redactor is not None
    lines = {json.loads(line)["id"]: line for line in raw_lines(runtime, KEY) if line.startswith(b'{"id"')}
    token = httpx.post(f"{sandbox.url}/sandbox/tokens", json={"merchant": "harbor"}).json()["access_token"]
    order_ids = sorted(lines)[:100]
    answer = httpx.post(
        f"{sandbox.url}/v2/orders/batch-retrieve",
        headers={"Authorization": f"Bearer {token}"},
        json={"order_ids": order_ids},
    )
    given = {one["id"]: one for one in answer.json()["orders"]}
    assert len(given) == 100
    for order_id, order in given.items():
        kept = json.loads(lines[order_id])
        assert kept == json.loads(redactor.one(json.dumps(order).encode()))
        assert kept["total_money"] == order["total_money"]


def test_personal_data_is_kept_where_somebody_asked_for_it(
    runtime: Runtime, sandbox: RunningSandbox, keeper: str
) -> None:
    texts = people(sandbox, "fjord")["names"]
    data = b"\n".join(raw_lines(runtime, keeper))
    assert any(text.encode() in data for text in texts)
    assert runtime.redactor(runtime.state.connections.get(keeper)) is None


# --- erasure ---


def customers(sandbox: RunningSandbox, merchant: str) -> list[dict[str, Any]]:
    """The merchant's customers, those with most orders first."""
    found = httpx.get(f"{sandbox.url}/sandbox/customers", params={"merchant": merchant}).json()["customers"]
    return sorted(found, key=lambda one: -len(one["orders"]))


def amounts(lines: list[bytes]) -> list[Any]:
    return [re.findall(rb'"amount":\s*-?\d+', line) for line in lines]


def books(runtime: Runtime) -> dict[str, int | None]:
    return {name: runtime.lake.version(name) for name in runtime.lake.tables() if name != "quarantine"}


def test_a_person_is_forgotten_and_the_books_stay(runtime: Runtime, sandbox: RunningSandbox) -> None:
    connection = runtime.state.connections.get(KEY)
    person = customers(sandbox, "harbor")[0]
    pseudonym = runtime.pseudonyms.of(person["customer_id"]).encode()
    day = DAYS[0]
    bad = BadRecord(Partition(KEY, day), "made up", b'{"id":"X","customer_id":"%s","total":1.10}' % pseudonym)
    runtime.quarantine.replace("tests", Partition(KEY, day), [bad])
    before = raw_lines(runtime, KEY)
    held = sum(pseudonym in line for line in before)
    assert held > 3
    tables = books(runtime)
    report = erase(runtime, connection, Erasure(customer_ids=(person["customer_id"],)), asked_by="tests")
    after = raw_lines(runtime, KEY)
    assert (report.records, report.quarantined, report.finished_at is not None) == (held, 1, True)
    assert 1 <= report.partitions <= held
    assert amounts(after) == amounts(before)
    assert books(runtime) == tables
    assert sum(old != new for old, new in zip(before, after, strict=True)) == held, "nobody else's record has changed"
    for path, data in files(runtime):
        assert pseudonym not in data, path
        assert person["customer_id"].encode() not in data, path
    (row,) = (row for row in runtime.quarantine.list(connection=KEY) if row["asset"] == "tests")
    assert json.loads(row["payload"]) == {"id": "X", "customer_id": None, "total": 1.10}
    # Everything still fits its manifest, and a second time there is nothing left to do.
    for stream in runtime.raw.streams("square"):
        for manifest in runtime.raw.of(stream).everything(KEY).readable:
            with runtime.raw.of(stream).local_file(manifest):
                pass
    again = erase(runtime, connection, Erasure(customer_ids=(person["customer_id"],)), asked_by="tests")
    assert (again.partitions, again.records, again.quarantined) == (0, 0, 0)
    assert again.fingerprint == report.fingerprint
    assert [one.id for one in runtime.state.erasures.list(KEY)][:2] == [again.id, report.id]
    run(runtime, "sync_square", KEY)
    assert books(runtime) == tables, "a new fetch gives the same rows"


def test_a_person_is_found_by_what_was_kept_in_clear(runtime: Runtime, sandbox: RunningSandbox, keeper: str) -> None:
    connection = runtime.state.connections.get(keeper)
    person = next(
        one for one in customers(sandbox, "fjord") if one["email"].encode() in b"".join(raw_lines(runtime, keeper))
    )
    before = raw_lines(runtime, keeper)
    report = erase(runtime, connection, Erasure(texts=(person["email"].upper(), person["phone"])), asked_by="tests")
    assert report.records >= 1
    after = raw_lines(runtime, keeper)
    assert amounts(after) == amounts(before)
    data = b"\n".join(after)
    assert person["email"].encode() not in data
    assert person["phone"].encode() not in data


def test_an_order_is_forgotten_by_its_id_and_events_with_it(runtime: Runtime) -> None:
    from flux_pipelines.state import NewEvent

    connection = runtime.state.connections.get(KEY)
    line = next(line for line in raw_lines(runtime, KEY) if b'"customer_id":"hmac:' in line)
    order = json.loads(line)
    order_id = order["id"]
    body = json.dumps({"data": {"object": {"order_id": order_id, "customer_id": order["customer_id"]}}}).encode()
    account = connection.account_id
    events = [
        NewEvent("square", "mine", "payment.updated", account, None, body, KEY),
        NewEvent("square", "unknown", "payment.updated", account, None, body),
        NewEvent(
            "square", "other", "payment.updated", account, None, b'{"order_id":"OTHER","customer_id":"hmac:x"}', KEY
        ),
    ]
    runtime.state.inbox.add_many(events)
    report = erase(runtime, connection, Erasure(order_ids=(order_id,)))
    assert (report.events, report.asked_by, report.orders) == (2, "webhook", 1)
    assert report.records >= 1
    bodies = {event.event_id: event.body for event in runtime.state.inbox.recent()}
    for event_id in ("mine", "unknown"):
        assert json.loads(bodies[event_id])["data"]["object"] == {"order_id": order_id, "customer_id": "erased"}
    assert b"hmac:x" in bodies["other"]
    (new,) = (json.loads(one) for one in raw_lines(runtime, KEY) if one.startswith(b'{"id":"%s"' % order_id.encode()))
    assert new["customer_id"] is None
    assert new["total_money"] == order["total_money"]
    for name in ("state.db", "state.db-wal"):
        path = runtime.settings.home / name
        assert not path.exists() or order["customer_id"].encode() not in path.read_bytes(), "not even in a free page"


def test_what_would_be_found_anywhere_is_refused(runtime: Runtime) -> None:
    connection = runtime.state.connections.get(KEY)
    with pytest.raises(ConfigurationError):
        erase(runtime, connection, Erasure(texts=("ada",)))
    with pytest.raises(ConfigurationError):
        erase(runtime, connection, Erasure(customer_ids=(" ",)))


def test_a_partition_that_cannot_be_read_is_not_called_done(runtime: Runtime) -> None:
    connection = runtime.state.connections.get(KEY)
    manifest = runtime.raw.everything(KEY).readable[0]
    path = next(p for p, _ in files(runtime, "lake/raw/square/orders") if p.name == manifest.file)
    # Somebody who is in the partition, and in others.
    persons = [
        pseudonym
        for pseudonym in re.findall(rb"hmac:[A-Za-z0-9_-]{22}", contents(path))
        if any(pseudonym in data for p, data in files(runtime, "lake/raw/square") if p != path)
    ]
    wanted = Erasure(texts=(persons[0].decode(),))
    sound = path.read_bytes()
    path.write_bytes(sound[:-1])
    with pytest.raises(TableDamagedError, match="all others are done"):
        erase(runtime, connection, wanted)
    assert runtime.state.erasures.list(KEY)[0].finished_at is None
    path.write_bytes(sound)
    assert [p for p, data in files(runtime, "lake/raw/square") if persons[0] in data] == [path]
    report = erase(runtime, connection, wanted)
    assert (report.partitions, report.finished_at is not None) == (1, True)
    assert not any(persons[0] in one for one in raw_lines(runtime, KEY))


def test_everything_of_a_connection_is_forgotten(runtime: Runtime, sandbox: RunningSandbox, keeper: str) -> None:
    before = raw_lines(runtime, keeper)
    others = raw_lines(runtime, KEY)
    report = erase(runtime, runtime.state.connections.get(keeper), Erasure())
    assert report.everything
    after = raw_lines(runtime, keeper)
    assert amounts(after) == amounts(before)
    persons = people(sandbox, "fjord")
    texts = [text for kind in ("names", "emails", "phones", "streets") for text in persons[kind]]
    found = re.compile("|".join(map(re.escape, texts)).encode()).search(b"\n".join(after))
    assert found is None
    assert b'"hmac:' not in b"\n".join(after)
    assert raw_lines(runtime, KEY) == others
