"""What the way from raw orders to rows does not load: pandas is 40 MiB and half a second of every run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from flux_pipelines.settings import PROJECT_ROOT

_SCRIPT = """
import sys
from pathlib import Path
from flux_pipelines.domain.tables import TRANSACTIONS
from flux_pipelines.lake import DeltaLake
from flux_pipelines.lake.store import object_store
from flux_pipelines_tests.sync.rawfiles import CONNECTION, DAY, PROVIDER, Normalisation, land, raw_store

folder = Path(sys.argv[1])
money = {"amount": 100, "currency": "USD"}
line = {"uid": "l", "name": "Tea", "quantity": "1", "base_price_money": money, "total_money": money}
order = {"id": "o", "location_id": "L", "state": "COMPLETED", "created_at": "2026-03-02T12:00:00Z",
         "line_items": [line], "total_money": money}
raw = raw_store(folder)
work = Normalisation(PROVIDER, raw, CONNECTION, [land(raw, [order])])
lake = DeltaLake(object_store(str(folder / "lake")))
commit = lake.replace(
    TRANSACTIONS.named("square/transactions"), work.reader(), [{"connection": CONNECTION.key, "raw_date": DAY}]
)
assert commit.rows == 1
print(*sorted({"pandas", "pyarrow.dataset"} & set(sys.modules)))
"""


def test_normalising_and_writing_load_no_pandas(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(tmp_path)], capture_output=True, text=True, cwd=PROJECT_ROOT, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("", 0), done.stderr
