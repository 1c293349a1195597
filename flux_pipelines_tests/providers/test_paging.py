"""What tells a list that goes in a circle from a long one."""

from __future__ import annotations

from itertools import count

import pytest

from flux_pipelines.domain.errors import BadResponseError
from flux_pipelines.providers.paging import Progress
from flux_pipelines_tests.transport.server import memory


def stuck_after(progress: Progress, cursors: int | None, records: int | None, lead: int = 0) -> int:
    """Return after how many pages a list is given up whose cursors and records repeat after so many."""
    for number in count():
        at = number - lead
        cursor = f"c{number if cursors is None or at < 0 else at % cursors}"
        page = b"r%d" % (number if records is None or at < 0 else at % records)
        try:
            progress.page(cursor, [page])
        except BadResponseError as stuck:
            told = str(stuck)
            break
    assert told.startswith("square:acme: the pages of /v2/orders/search do not end")
    return number + 1


@pytest.mark.parametrize("lead", [0, 1, 10, 1000])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 100])
def test_a_circle_is_found_whatever_its_length_and_wherever_it_begins(length: int, lead: int) -> None:
    most = 3 * (lead + length) + 2
    assert stuck_after(Progress("square:acme", "/v2/orders/search"), length, None, lead) <= most
    assert stuck_after(Progress("square:acme", "/v2/orders/search"), None, length, lead) <= most + 4 * length


def test_a_long_list_is_read_to_its_end_in_the_same_memory() -> None:
    progress = Progress("square:acme", "/v2/orders/search")
    with memory() as grown:
        for number in range(200_000):
            progress.page(f"a-cursor-of-some-length-{number}", [b"%d" % number, b"r"])
        assert grown() < 4 * 1024 * 1024


def test_pages_that_shift_and_pages_that_are_empty_are_borne_for_a_while() -> None:
    progress = Progress("square:acme", "/v2/orders/search")
    for number in range(100):
        progress.page(f"empty-{number}", [])
    progress.page("a", [b"one"])
    for number in range(3):
        progress.page(f"same-{number}", [b"one"])
    for number in range(100):
        progress.page(f"still-empty-{number}", [])
    with pytest.raises(BadResponseError, match="pages without a record"):
        progress.page("empty for ever", [])
    with pytest.raises(BadResponseError, match="not where"):
        progress.page(None, [b"two"])
