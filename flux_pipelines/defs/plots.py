"""Plots for the Dagster UI: small SVG pictures, written by hand so that no plotting library has to load.

The UI shows Markdown; a picture goes into it as a data URI. Geometry is in floats (pixels), never money: callers pass
exact values and only their positions are rounded.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from html import escape

import dagster as dg

from flux_pipelines.domain import inert

_WIDTH, _HEIGHT = 640, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 34, 28
_PLOT_WIDTH, _PLOT_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
_BLUE, _ORANGE, _GREY, _INK = "#4f6bed", "#e8711a", "#d5d9e0", "#3b4252"

Point = tuple[date, Decimal]


def markdown(svg: str, caption: str) -> dg.MarkdownMetadataValue:
    """Return a picture as Markdown metadata."""
    data = base64.b64encode(svg.encode()).decode()
    return dg.MetadataValue.md(f"![{inert.markdown(caption)}](data:image/svg+xml;base64,{data})")


def bars(title: str, points: Sequence[Point], *, highlight: date | None = None) -> str:
    """Draw a bar a day, one of them highlighted."""
    if not points:
        return _frame(title, "", Decimal(0), Decimal(0), [])
    low, high = _scale([value for _, value in points])
    slot = _PLOT_WIDTH / len(points)
    zero = _y(Decimal(0), low, high)
    body = []
    for index, (day, value) in enumerate(points):
        y = _y(value, low, high)
        body.append(
            f'<rect x="{_LEFT + index * slot + slot * 0.12:.1f}" y="{min(y, zero):.1f}" width="{slot * 0.76:.1f}" '
            f'height="{abs(zero - y):.1f}" fill="{_ORANGE if day == highlight else _BLUE}">'
            f"<title>{day}: {value:,}</title></rect>"
        )
    labels = [(_LEFT + (i + 0.5) * slot, points[i][0]) for i in sorted({0, len(points) // 2, len(points) - 1})]
    return _frame(title, "".join(body), low, high, labels)


def pairs(title: str, days: Sequence[tuple[date, Decimal, Decimal]], names: tuple[str, str]) -> str:
    """Draw two bars a day beside each other, so that a day on which they differ stands out."""
    if not days:
        return _frame(title, "", Decimal(0), Decimal(0), [])
    low, high = _scale([value for _, *values in days for value in values])
    slot = _PLOT_WIDTH / len(days)
    zero = _y(Decimal(0), low, high)
    body = []
    for index, (day, *values) in enumerate(days):
        for part, (value, colour, name) in enumerate(zip(values, (_BLUE, _ORANGE), names, strict=True)):
            y = _y(value, low, high)
            body.append(
                f'<rect x="{_LEFT + index * slot + slot * (0.1 + 0.4 * part):.1f}" y="{min(y, zero):.1f}" '
                f'width="{slot * 0.4:.1f}" height="{abs(zero - y):.1f}" fill="{colour}">'
                f"<title>{day}, {_text(name)}: {value:,}</title></rect>"
            )
    body.append(
        f'<text x="{_WIDTH - _RIGHT}" y="18" text-anchor="end" fill="{_INK}">'
        f'<tspan fill="{_BLUE}">{_text(names[0])}</tspan> / <tspan fill="{_ORANGE}">{_text(names[1])}</tspan></text>'
    )
    labels = [(_LEFT + (i + 0.5) * slot, days[i][0]) for i in sorted({0, len(days) // 2, len(days) - 1})]
    return _frame(title, "".join(body), low, high, labels)


def lines(title: str, history: Sequence[Point], forecast: Sequence[Point]) -> str:
    """Draw what happened as a line and what is forecast as another that goes on from its end."""
    every = [*history, *forecast]
    if not every:
        return _frame(title, "", Decimal(0), Decimal(0), [])
    low, high = _scale([value for _, value in every])
    first = min(day for day, _ in every)
    span = max((max(day for day, _ in every) - first).days, 1)

    def place(point: Point) -> tuple[float, float]:
        return _LEFT + _PLOT_WIDTH * (point[0] - first).days / span, _y(point[1], low, high)

    def path(points: Sequence[Point], colour: str, dashes: str = "") -> str:
        where = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, points))
        return f'<polyline points="{where}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>'

    body = path(history, _BLUE)
    if forecast:
        body += path([*history[-1:], *forecast], _ORANGE, ' stroke-dasharray="5 3"')
    body += (
        f'<text x="{_WIDTH - _RIGHT}" y="18" text-anchor="end" fill="{_INK}">'
        f'<tspan fill="{_BLUE}">sold</tspan> / <tspan fill="{_ORANGE}">forecast</tspan></text>'
    )
    days = [first, *(day for day, _ in history[-1:]), max(day for day, _ in every)]
    return _frame(title, body, low, high, [(place((day, low))[0], day) for day in dict.fromkeys(days)])


def _scale(values: Sequence[Decimal]) -> tuple[Decimal, Decimal]:
    low, high = min(Decimal(0), *values), max(Decimal(0), *values)
    return (low, high) if high > low else (low, low + 1)


def _y(value: Decimal, low: Decimal, high: Decimal) -> float:
    return _TOP + _PLOT_HEIGHT * (1 - float((value - low) / (high - low)))


def _frame(title: str, body: str, low: Decimal, high: Decimal, labels: Sequence[tuple[float, date]]) -> str:
    grid = []
    if high > low:
        for value in (low, (low + high) / 2, high):
            y = _y(value, low, high)
            grid.append(
                f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_GREY}"/>'
                f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="{_INK}">{_short(value)}</text>'
            )
    dates = "".join(
        f'<text x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="{_anchor(x)}" fill="{_INK}">{day}</text>'
        for x, day in labels
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>'
        f'<text x="{_LEFT}" y="18" font-size="13" fill="{_INK}">{_text(title)}</text>'
        f"{''.join(grid)}{body}{dates}</svg>"
    )


def _text(text: str) -> str:
    return escape(inert.plain(text))


def _anchor(x: float) -> str:
    return "start" if x < _LEFT + 30 else "end" if x > _WIDTH - _RIGHT - 30 else "middle"


def _short(value: Decimal) -> str:
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if abs(value) >= size:
            return f"{value / size:.1f}{letter}"
    return f"{value:.0f}"
