from __future__ import annotations

import pytest

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.state import State


def test_a_thing_has_one_name_and_a_new_one_takes_its_place(state: State) -> None:
    mappings = state.mappings
    assert mappings.last_decided() is None
    mappings.decide("product", [("square:a", "P1", "Latte"), ("toast:a", "T1", " Latte ")], by="ada")
    first = mappings.last_decided()
    mappings.decide("product", [("square:a", "P1", "House latte")], by="ben")
    found = {(d.connection_key, d.external_id): (d.name, d.verdict, d.decided_by) for d in mappings.all("product")}
    assert found == {("square:a", "P1"): ("House latte", "same", "ben"), ("toast:a", "T1"): ("Latte", "same", "ada")}
    assert mappings.all("store") == []
    last = mappings.last_decided()
    assert first is not None
    assert last is not None
    assert last > first


def test_what_is_refused_and_what_is_taken_back(state: State) -> None:
    mappings = state.mappings
    mappings.decide("store", [("square:a", "L1", "Pier")], by="ada", verdict="different")
    mappings.decide("store", [("square:a", "L1", "Harbor")], by="ada")
    assert [(d.name, d.verdict) for d in mappings.all("store")] == [("Pier", "different"), ("Harbor", "same")]
    mappings.decide("store", [("square:a", "L1", "Harbor")], by="ada", verdict="undone")
    mappings.decide("store", [("square:a", "L1", "Pier")], by="ada")  # she has changed her mind
    assert [(d.name, d.verdict) for d in mappings.all("store")] == [("Pier", "same")]


@pytest.mark.parametrize("name", ["", "  ", "a" * 256, "a\nb"])
def test_a_name_that_is_none_leaves_everything_as_it_was(state: State, name: str) -> None:
    with pytest.raises(ConfigurationError, match="printable"):
        state.mappings.decide("product", [("square:a", "P1", "Latte"), ("square:a", "P2", name)], by="ada")
    assert state.mappings.all("product") == []
