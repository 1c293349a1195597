"""Text of others as something to read: on every page that reads Markdown, in errors, at a terminal."""

from __future__ import annotations

import html
import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from flux_pipelines.cli import output
from flux_pipelines.domain.errors import BadRequestError
from flux_pipelines.domain.inert import markdown, plain, shown

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
#: What GitHub's Markdown makes links of in bare text, as Dagster's UI looks for it: `mdast-util-gfm-autolink-literal`.
LINKED = re.compile(r"(https?://|www(?=\.))([-.\w]+)|([-.\w+]+)@([-\w]+(\.[-\w]+)+)", re.IGNORECASE)
#: Markup that tells something, beside anything at all.
MARKED = st.lists(
    st.sampled_from(
        ["![", "](", "http://", "www.", "WWW.", "a@b.c", "|", "\\", "`", "``", "<img src=x>", "&#33;", "&lt;", "*", "_", "__", "a_b", "~~", "[^1]", "\n", "\r\n", "- ", "# ", "x", " ", "\u202e", "\x1b[2J", "\u2060", "\u200b"]
    )
).map("".join)  # fmt: skip


@settings(deadline=None)  # a busy machine is no defect
@given(st.one_of(MARKED, st.text()))
def test_a_cell_of_a_table_shows_its_text_and_nothing_else(text: str) -> None:
    page = (
        MarkdownIt("commonmark")
        .enable(["table", "strikethrough"])
        .render(f"| a | b |\n|---|---|\n| {markdown(text)} | z |")
    )
    cells = re.findall(r"<td>(.*?)</td>", page, re.DOTALL)
    assert len(cells) == 2
    seen = html.unescape(cells[0])
    assert not re.search(r"<(?!/?td)", cells[0]), "an element was made of it"
    assert not LINKED.search(seen), "a link would be made of it"
    # Space around a text is not shown, of whatever width: a renderer takes it off.
    assert seen.replace("\u2060", "").strip() == plain(text).strip()
    assert shown(markdown(text)) == plain(text)


@settings(deadline=None)  # a busy machine is no defect
@given(st.text())
def test_plain_text_is_one_line_without_anything_hidden(text: str) -> None:
    shown = plain(text)
    assert len(shown.splitlines()) <= 1
    assert not set(shown) & {
        *map(chr, range(32)),
        "\x7f",
        "\u2028",
        *"\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
    }
    shown.encode()  # halves of surrogates cannot be written


def test_names_of_all_languages_stay_as_they_are() -> None:
    for name in ("Café Crème – 20 %", "می‌خواهم", "👩‍🍳 Chef's", "抹茶ラテ（大）", "50/50 #1 (L) + 2"):
        assert plain(name) == name


def test_an_error_is_one_line_whatever_a_provider_says() -> None:
    error = BadRequestError("Square says: no\nERROR forged\x1b[31m \u202egnp.exe", connection="square:acme")
    assert error.what == "Square says: no ERROR forged[31m gnp.exe"
    assert str(error).isprintable()


@pytest.mark.parametrize("way", ["say", "warn", "error", "table"])
def test_a_terminal_is_told_nothing_but_text(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=False, width=200)
    monkeypatch.setattr(output, "console", console)
    monkeypatch.setattr(output, "stderr", console)
    name = "Latte\x1b[2J\x1b]0;owned\x07\u202e"
    if way == "table":
        output.table("", ("name",), [(name,)])
    else:
        getattr(output, way)(name)
    assert "Latte[2J]0;owned" in shown.getvalue()
    assert "\x1b" not in shown.getvalue()
    assert "\u202e" not in shown.getvalue()
