"""What providers declare personal, over the payloads that they publish as examples."""

from __future__ import annotations

import json
import re

import pytest

from flux_pipelines.privacy import Pseudonyms, Redactor
from flux_pipelines.providers.registry import all_providers
from flux_pipelines.settings import PROJECT_ROOT

EXAMPLES = PROJECT_ROOT.parent / "shared" / "examples"
#: E-mail addresses and phone numbers look the same in everybody's payloads; digits of cards are known by their members.
PERSONAL = re.compile(
    rb'[\w.+-]+@[\w-]+\.[\w.]+|"(?:\+?1?[-. ]?\(?\d{3}\)?[-. ]\d{3}[-. ]\d{4}|\+\d{8,})"'
    rb'|"(?:last_4|bin|last4Digits|credit_card_number|credit_card_bin)"\s*:\s*"[^"]*\d[^"]*"'
)


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the providers' examples are not beside the project")
@pytest.mark.parametrize("name", [name for name in sorted(all_providers()) if (EXAMPLES / name).is_dir()])
def test_nothing_personal_is_left_of_official_examples(name: str) -> None:
    redactor = Redactor(all_providers()[name].redaction, Pseudonyms(bytes(32)))
    before: set[bytes] = set()
    for path in sorted((EXAMPLES / name).rglob("*.json")):
        record = path.read_bytes()
        redacted = redactor.one(record)
        json.loads(redacted)
        assert redactor.one(redacted) == redacted
        if path.name == "locations_list.json":  # a shop's own number is not personal
            continue
        before |= set(PERSONAL.findall(record))
        assert PERSONAL.findall(redacted) == [], path.name
    assert before, "so that looking for them can fail"


@pytest.mark.parametrize("name", sorted(all_providers()))
def test_personal_data_can_be_kept_by_a_setting(name: str) -> None:
    spec = all_providers()[name]
    (setting,) = (one for one in spec.settings if one.name == "keep_personal_data")
    assert setting.default == 0
    declared = spec.redaction.remove | spec.redaction.pseudonymise
    assert declared
    assert all(
        re.fullmatch(r"\w+", member, re.ASCII)
        for member in declared | {n for pair in spec.redaction.within for n in pair}
    )
