from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from flux_pipelines.domain.partition import Partition
from flux_pipelines.lake import DeltaLake, Quarantine, object_store, payload_bytes
from flux_pipelines_tests.lake.rows import ACME, DAY, days


@dataclass(frozen=True)
class Bad:
    payload: bytes
    reason: str = "its totals do not add up"
    order_id: str | None = None


@pytest.fixture
def quarantine(lake: DeltaLake) -> Quarantine:
    return Quarantine(lake)


ASSET = "square/transactions"


def test_a_record_is_kept_whole_with_its_reason(quarantine: Quarantine) -> None:
    text, binary = b'{"id": "1", "note": "\xc3\xa9"}\n ', b'{"id": "\xff\xfe"'
    assert quarantine.replace(ASSET, Partition(ACME, DAY), [Bad(text, order_id="1"), Bad(binary, "not UTF-8")]) == 2
    rows = {row["payload_encoding"]: row for row in quarantine.list()}
    assert {encoding: payload_bytes(row) for encoding, row in rows.items()} == {"utf-8": text, "base64": binary}
    assert (rows["utf-8"]["order_id"], rows["base64"]["reason"]) == ("1", "not UTF-8")
    identity = f"{ASSET}|{ACME}|2025-03-01|".encode() + text
    assert rows["utf-8"]["record_id"] == hashlib.sha256(identity).hexdigest()
    assert (rows["utf-8"]["asset"], rows["utf-8"]["connection"], rows["utf-8"]["business_date"]) == (ASSET, ACME, DAY)


def test_a_rerun_does_not_double_and_a_repaired_record_leaves(quarantine: Quarantine) -> None:
    both = [Bad(b"one"), Bad(b"two")]
    quarantine.replace(ASSET, Partition(ACME, DAY), both)
    first = quarantine.list()
    assert quarantine.replace(ASSET, Partition(ACME, DAY), [*both, Bad(b"one")]) == 2
    assert quarantine.list() == first  # the instant it was put here included
    quarantine.replace(ASSET, Partition(ACME, DAY), [Bad(b"two", "another reason")])
    assert [(row["payload"], row["reason"], row["quarantined_at"]) for row in quarantine.list()] == [
        ("two", "another reason", next(row["quarantined_at"] for row in first if row["payload"] == "two"))
    ]
    assert quarantine.replace(ASSET, Partition(ACME, DAY), []) == 0
    assert quarantine.list() == []


def test_other_assets_days_and_connections_are_not_touched(quarantine: Quarantine) -> None:
    first, second = days(2)
    quarantine.replace(ASSET, Partition(ACME, first), [Bad(b"a")])
    quarantine.replace("square/raw_orders", Partition(ACME, first), [Bad(b"a")])
    quarantine.replace(ASSET, Partition(ACME, second), [Bad(b"a")])
    quarantine.replace(ASSET, Partition("square:other", first), [Bad(b"a")])
    assert len(quarantine.list()) == len({row["record_id"] for row in quarantine.list()}) == 4
    quarantine.replace(ASSET, Partition(ACME, first), [])
    assert [(row["asset"], row["connection"], row["business_date"]) for row in quarantine.list()] == [
        ("square/raw_orders", ACME, first),
        (ASSET, ACME, second),
        (ASSET, "square:other", first),
    ]
    assert len(quarantine.list(connection=ACME)) == 2
    assert len(quarantine.list(asset=ASSET)) == 2
    assert len(quarantine.list(first_day=second)) == 1
    assert len(quarantine.list(last_day=first)) == 2
    assert quarantine.list(connection="square:none") == []


def test_nothing_bad_costs_no_commit(local: DeltaLake) -> None:
    quarantine = Quarantine(local)
    assert quarantine.replace(ASSET, Partition(ACME, DAY), []) == 0
    assert quarantine.list() == []
    assert not local.exists("quarantine")
    quarantine.replace(ASSET, Partition(ACME, DAY), [Bad(b"x")])
    quarantine.replace(ASSET, Partition(ACME, DAY), [Bad(b"x")])
    quarantine.replace(ASSET, Partition(ACME, date(2025, 5, 5)), [])
    assert local.version("quarantine") == 1


WRITER = """
import sys
from datetime import date
from flux_pipelines.domain.partition import Partition
from flux_pipelines.lake import DeltaLake, Quarantine, object_store
from flux_pipelines_tests.lake.test_quarantine import Bad
quarantine = Quarantine(DeltaLake(object_store(sys.argv[1])))
for turn in range(5):
    quarantine.replace(sys.argv[2], Partition("square:acme", date(2025, 3, 1)), [Bad(b"%d" % n) for n in range(turn + 1)])
"""


def test_processes_that_write_the_same_partition_keep_each_others_records(tmp_path: Path) -> None:
    assets = [f"square/asset_{n}" for n in range(2)]
    running = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), asset]) for asset in assets]
    for process in running:
        assert process.wait(120) == 0
    found = Quarantine(DeltaLake(object_store(tmp_path))).list()
    assert {asset: sum(row["asset"] == asset for row in found) for asset in assets} == dict.fromkeys(assets, 5)
