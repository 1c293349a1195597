"""The bodies that go to a demand endpoint and come back: written exactly, read strictly. Numbers never pass a float."""

from __future__ import annotations

import json
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from flux_pipelines.domain.decoding import decode
from flux_pipelines.forecaster.items import QUANTITY_STEP, ItemHistory

#: Well inside a `quantity` column, decimal(18,5): one absurd answer must not make the whole table unwritable.
_QUANTITY_LIMIT = Decimal(10) ** 12


class ItemFailedError(Exception):
    """An item gets no forecast; the message says why."""


def write_request(history: ItemHistory, horizon: int) -> bytes:
    """Return the request for one item."""
    import msgspec

    return msgspec.json.Encoder(decimal_format="number").encode(
        {
            "menu_item_id": history.item.menu_item_id,
            "historical_data": [{"date": day, "quantity": quantity} for day, quantity in history.points],
            "forecast_horizon": horizon,
        }
    )


def model_error_message(response: Any) -> str:
    """Return what the model said, out of the error answer that SageMaker wraps it in."""
    original = str(response.get("OriginalMessage") or response.get("Error", {}).get("Message") or "no message")
    try:
        unwrapped = decode(original)
    except ValueError:
        unwrapped = None
    if isinstance(unwrapped, dict) and isinstance(unwrapped.get("error"), str):
        original = unwrapped["error"]
    return f"the model answered {response.get('OriginalStatusCode', 'an error')}: {original}"


def read_answer(body: bytes, last: date, days: int) -> tuple[str, list[tuple[date, Decimal]]]:
    """Read an answer of exactly the contract's form: `days` consecutive dates after `last`, finite quantities.

    Raises:
        ItemFailedError: it is not; the message says in what.

    """
    answer = _decode(body)
    if not isinstance(answer, dict):
        raise ItemFailedError("the endpoint's answer is not a JSON object")
    model_type, given = answer.get("model_type"), answer.get("predictions")
    if not isinstance(model_type, str) or not model_type:
        raise ItemFailedError("the endpoint's answer has no model_type")
    if not isinstance(given, list):
        raise ItemFailedError("the endpoint's answer has no list of predictions")
    if len(given) != days:
        raise ItemFailedError(f"the endpoint gave {len(given)} predictions; {days} were asked for")
    predictions = []
    for ahead, entry in enumerate(given, start=1):
        expected = last + timedelta(days=ahead)
        if not isinstance(entry, dict) or entry.get("date") != expected.isoformat():
            found = entry.get("date") if isinstance(entry, dict) else entry
            raise ItemFailedError(f"prediction {ahead} is for {str(found)[:40]!r}; expected {expected.isoformat()}")
        predictions.append((expected, _quantity(entry.get("predicted_quantity"), expected)))
    return model_type, predictions


def _decode(body: bytes) -> object:
    def refuse(constant: str) -> object:
        raise ValueError(f"{constant} is not a number")

    try:
        return json.loads(body, parse_float=Decimal, parse_int=Decimal, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        start = body[:60].decode("utf-8", "replace")
        raise ItemFailedError(f"the endpoint's answer is not valid JSON ({error}); it begins {start!r}") from error


def _quantity(value: object, day: date) -> Decimal:
    if not isinstance(value, Decimal):
        raise ItemFailedError(f"the quantity predicted for {day.isoformat()} is not a number")
    if value < 0:
        raise ItemFailedError(f"the quantity predicted for {day.isoformat()} is negative ({value})")
    if not value.is_finite() or value >= _QUANTITY_LIMIT:
        raise ItemFailedError(f"the quantity predicted for {day.isoformat()} is out of range ({value})")
    return abs(value).quantize(QUANTITY_STEP, rounding=ROUND_HALF_EVEN)  # abs: JSON knows -0.0
