"""What tells a list that goes in a circle from a long one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import msgspec
import pytest

from flux_pipelines.domain.errors import BadResponseError
from flux_pipelines.providers.common.paging import Progress, by_cursor, by_instant, by_offset
from flux_pipelines.transport.errors import RefusedError
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


def raw_of(one: tuple[int, str]) -> msgspec.Raw:
    return msgspec.Raw(b"%d %s" % (one[0], one[1].encode()))


def at(second: int) -> datetime:
    return datetime(2026, 3, 2, tzinfo=UTC) + timedelta(seconds=second)


def read_by_instant(records: list[tuple[int, str]], size: int, between: Callable[[int], None]) -> list[str]:
    """Read a list that is sorted by time and asked for by offset, and let something happen between its pages."""
    asked = count()

    def ask(start: datetime, offset: int) -> list[tuple[int, str]]:
        between(next(asked))
        return sorted(one for one in records if at(one[0]) >= start)[offset : offset + size]

    pages = by_instant(ask, at(0), lambda one: at(one[0]), raw_of, connection="bunch:one", what="/orders")
    return [name for page in pages for _, name in page]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_list_by_offset_is_read_whole_however_many_records_are_of_one_instant(size: int) -> None:
    records = [(1, "a"), (2, "b"), *((3, f"c{n}") for n in range(9)), (4, "d")]
    assert sorted(read_by_instant(records, size, lambda _: None)) == sorted(name for _, name in records)


@pytest.mark.parametrize("moment", range(6))
def test_a_record_that_changes_while_pages_are_read_makes_no_other_be_left_out(moment: int) -> None:
    records = [(n, f"r{n}") for n in range(10)]

    def change(asked: int) -> None:
        if asked == moment:
            records.remove((1, "r1"))
            records.append((99, "r1"))

    assert {f"r{n}" for n in range(10)} <= {*read_by_instant(records, 3, change)}


def test_a_list_by_offset_ends_with_an_empty_page_and_one_that_never_does_is_noticed() -> None:
    pages = {0: [b"a", b"b"], 2: [b"c"], 3: []}
    found = by_offset(lambda offset: [msgspec.Raw(one) for one in pages[offset]], connection="bunch:one", what="/items")
    assert [bytes(raw) for page in found for raw in page] == [b"a", b"b", b"c"]
    with pytest.raises(BadResponseError, match="/items do not end"):
        list(by_offset(lambda _: [msgspec.Raw(b"a")], connection="bunch:one", what="/items"))


def test_a_cursor_that_dies_makes_a_list_begin_again_from_the_last_instant_and_not_for_ever() -> None:
    died: list[datetime] = []

    def ask(start: datetime, cursor: int) -> list[int]:
        if cursor and start not in died:
            died.append(start)
            raise RefusedError("no", codes=("DEAD",))
        first = round((start - at(0)).total_seconds()) + cursor
        return [first, first + 1]

    def read(**options: Any) -> Iterator[list[int]]:
        following = lambda page: page[0] + 2 if page[0] < 4 else None  # noqa: E731
        return by_cursor(
            ask, following, lambda _: [], first=0, start=at(0), connection="bunch:one", what="/orders", **options
        )

    def dead(refused: RefusedError) -> bool:
        return "DEAD" in refused.codes

    assert [page[0] for page in read(latest=lambda page: at(page[-1]), is_dead=dead)][:2] == [0, 1]
    died.clear()
    with pytest.raises(RefusedError):
        list(read())
