"""Forgetting a person: what the lake and the state hold of them is erased, history included; the books stay as they are."""

from flux_pipelines.erasure.erase import blank, erase, in_tables, tables_of
from flux_pipelines.erasure.wanted import Wanted
from flux_pipelines.state import ErasureReport

__all__ = ["ErasureReport", "Wanted", "blank", "erase", "in_tables", "tables_of"]
