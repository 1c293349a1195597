"""The contract suite, privacy: what lands names nobody, by what the provider declares to be personal."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from flux_pipelines.sync.reading import raw_blocks
from flux_pipelines_tests.contract.conftest import Connect, Played, providers
from flux_sandbox.people import personal

pytestmark = pytest.mark.parametrize("name", providers())


def landed(played: Played, texts: Sequence[str], **options: object) -> set[str]:
    """Land some days; return which of the texts are in their raw files."""
    found = set()
    for outcome in played.sync(played.days, **options).values():
        assert outcome.manifest is not None
        with played.runtime.raw.local_file(outcome.manifest) as path:
            assert path is not None
            content = b"\n".join(line for block in raw_blocks(path) for line in block).decode()
        found |= {text for text in texts if text in content}
    return found


def test_what_lands_names_nobody(connect: Connect, name: str) -> None:
    played = connect(name)
    people = personal([played.merchant])
    texts = [*people["names"], *people["emails"], *people["phones"], *people["streets"]]
    assert landed(played, texts, redact=played.runtime.redactor(played.connection)) == set()
