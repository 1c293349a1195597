from __future__ import annotations

import pytest

from flux_pipelines.state import State


@pytest.mark.parametrize("value", ["2026-01-01T00:00:00Z", 7, [1, "ñ"], {"a": {"b": None}}, False, 0])
def test_a_cursor_comes_back_as_it_was_set(state: State, value: object) -> None:
    assert state.cursors.get("changes") is None
    state.cursors.set("changes", "before")
    state.cursors.set("changes", value)
    assert state.cursors.get("changes") == value
    assert state.cursors.get("other") is None
    state.cursors.delete("changes")
    state.cursors.delete("changes")
    assert state.cursors.get("changes") is None
