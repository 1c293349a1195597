"""dlt as `dlt_default.py`, with what its performance guide offers: two normalise workers and rotated files."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

os.environ |= {
    "NORMALIZE__WORKERS": "2",
    "SOURCES__DATA_WRITER__FILE_MAX_ITEMS": "20000",  # several files, or the second worker has nothing to do
    "NORMALIZE__DATA_WRITER__FILE_MAX_ITEMS": "50000",
    "SOURCES__DATA_WRITER__BUFFER_MAX_ITEMS": "10000",
    "NORMALIZE__DATA_WRITER__BUFFER_MAX_ITEMS": "10000",
}

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).with_name("dlt_default.py")), run_name="__main__")
