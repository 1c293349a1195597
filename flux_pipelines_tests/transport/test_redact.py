from __future__ import annotations

import io
import logging

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_pipelines.transport.redact import (
    MASK,
    RedactingFilter,
    guard_http_logs,
    redact,
    redact_url,
    remember,
)

SECRET = "zQ8vN2pLx7Tt5Rr3Kk1"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"authorization: Client {SECRET}",
        f"Headers({{'authorization': 'Bearer {SECRET}'}})",
        f'{{"access_token": "{SECRET}", "ok": 1}}',
        f'{{"refresh_token":"{SECRET}"}}',
        f"client_secret={SECRET}&grant_type=refresh_token",
        f"https://api.example.com/x?access_token={SECRET}",
        f"square_access_token={SECRET}",
        f"X-Api-Key: {SECRET}",
        f"Set-Cookie: {SECRET}",
        f"password='{SECRET}'",
        f"https://user:{SECRET}@host/path",
        f"postgresql+psycopg2://flux:{SECRET}@db/flux",
    ],
)
def test_secrets_are_known_by_where_they_stand(text: str) -> None:
    assert SECRET not in redact(text)
    assert MASK in redact(text)
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize("word", ["secret", "password", "client", "access"])
def test_a_password_that_is_a_word_hides_no_name_by_which_a_secret_is_known(word: str) -> None:
    remember(word)
    shown = redact(f"client_secret={SECRET}&access_token={SECRET}; password='{SECRET}'; sent {word}, {word}")
    assert SECRET not in shown
    assert f"sent {MASK}, {MASK}" in shown


@pytest.mark.parametrize(
    "token",
    [
        "EAAAEOuLQObrVwJvCvoioNzvG3nRzcS5SYc7",
        "sq0atp-C8aKqXjXJTOfCZ9XYZabcd",
        "shpat_0123456789abcdef0123456789abcdef",
        "sk_live_51H8abcdefghijklmnop",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcDEF123",
    ],
)
def test_secrets_are_known_by_their_shape(token: str) -> None:
    assert redact(f"the value {token} was refused") == f"the value {MASK} was refused"


def test_values_once_used_are_known_anywhere() -> None:
    remember("plain-words-as-a-key")
    assert redact("x plain-words-as-a-key y") == f"x {MASK} y"


def test_ordinary_text_stays() -> None:
    for text in (
        "square:acme: GET /v2/locations was answered 503 (SERVICE_UNAVAILABLE: try later)",
        "21 orders, 48 lines, 12.50 net; cursor followed 3 times",
        "no token was found",
        "The tokens of 3 connections were renewed",
    ):
        assert redact(text) == text


@given(st.text(max_size=200))
def test_any_text_can_be_redacted(text: str) -> None:
    redact(text)
    redact_url(f"https://h/{text}".replace("[", "").replace("]", ""))


def test_urls_keep_names_of_their_query_only() -> None:
    assert redact_url(f"https://u:p@h:8080/v2/x?cursor={SECRET}&limit=5#frag") == "https://h:8080/v2/x?cursor=*&limit=*"
    assert redact_url("https://h/v2") == "https://h/v2"


def test_logging_with_arguments_and_tracebacks() -> None:
    stream = io.StringIO()
    logger = logging.Logger("flux-redact-test")
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactingFilter())
    logger.addHandler(handler)
    logger.warning("answer: %s", {"access_token": SECRET})
    try:
        raise ValueError(f"bad header Bearer {SECRET}")
    except ValueError:
        logger.exception("it failed")
    assert SECRET not in stream.getvalue()
    assert "Traceback" in stream.getvalue()
    assert "ValueError" in stream.getvalue()


def test_the_http_library_logs_no_query(caplog: pytest.LogCaptureFixture) -> None:
    guard_http_logs()
    guard_http_logs()
    with caplog.at_level(logging.INFO, logger="httpx"):
        client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200)))
        client.get(f"http://127.0.0.1/v2?cursor={SECRET}")
        client.close()
    assert "/v2?cursor=*" in caplog.text
    assert SECRET not in caplog.text
