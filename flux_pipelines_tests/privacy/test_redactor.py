"""The redactor against one that reads the JSON, byte for byte, whatever the JSON looks like."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.domain.redaction import Redaction
from flux_pipelines.lake.raw import ndjson
from flux_pipelines.privacy import Pseudonyms, Record, Redactor, normalised

KEY = bytes(range(32))
PSEUDONYMS = Pseudonyms(KEY)
REDACTION = Redaction(
    remove=frozenset({"card", "email_address", "zip", "ip", "k", "note"}),
    pseudonymise=frozenset({"customer_id", "phone", "note", "number"}),
    within=frozenset({("name", "customer"), ("name", "recipient"), ("number", "customer")}),
)
NAMES = sorted({*REDACTION.remove, *REDACTION.pseudonymise, "name", "customer", "recipient"})
REDACTOR = Redactor(REDACTION, PSEUDONYMS)


# --- JSON as it may be written, kept as it was written ---


@dataclass
class Node:
    """A value: its own text, or the texts between its parts."""

    text: str = ""
    parts: list[str] = field(default_factory=list)  # what is written between the values below
    below: list[tuple[str, Node]] = field(default_factory=list)  # the name in quotes (empty in a list) and the value

    def written(self) -> str:
        if not self.parts:
            return self.text
        pieces = [self.parts[0]]
        for (_, value), after in zip(self.below, self.parts[1:], strict=True):
            pieces += [value.written(), after]
        return "".join(pieces)


BLANKS = st.sampled_from(["", "", "", " ", "\n", "\t", " \r\n  ", " " * 40])
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ['"card":1', '\\"', "\\", 'a","card":"b', "Ada@Example.COM ", "+1 (555) 625-1199", "hmac:", PSEUDONYMS.of("x")]
    ),
)


@st.composite
def quoted(draw: st.DrawFn, texts: st.SearchStrategy[str] = TEXTS) -> str:
    """A text in quotes, with escapes where JSON wants them and, sometimes, where it only allows them."""
    text = draw(texts)
    if draw(st.integers(0, 5)) == 0:
        return '"' + "".join(f"\\u{n:04x}" for n in _units(text)) + '"'
    return json.dumps(text, ensure_ascii=draw(st.booleans())).encode("utf-8", "replace").decode()


def _units(text: str) -> list[int]:
    data = text.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]


SCALARS = st.one_of(
    quoted(), st.sampled_from(["null", "true", "false", "0", "-1.10", "1E+5", "12345678901234567890", "5556251199"])
).map(lambda text: Node(text=text))
MEMBERS = st.one_of(st.sampled_from(NAMES), st.sampled_from([f"x{name}" for name in NAMES]), TEXTS)


@st.composite
def containers(draw: st.DrawFn, inner: st.SearchStrategy[Node]) -> Node:
    opening, closing = draw(st.sampled_from([("{", "}"), ("{", "}"), ("[", "]")]))
    values = draw(st.lists(inner, max_size=4))
    names = [draw(quoted(MEMBERS)) if opening == "{" else "" for _ in values]
    parts = [opening + draw(BLANKS)]
    for number, name in enumerate(names):
        if name:
            parts[-1] += f"{name}{draw(BLANKS)}:{draw(BLANKS)}"
        parts.append(draw(BLANKS) + ("," + draw(BLANKS) if number + 1 < len(values) else closing))
    if not values:
        parts[0] += closing
    return Node(parts=parts, below=list(zip(names, values, strict=True)))


RECORDS = st.recursive(SCALARS, containers, max_leaves=14).filter(lambda node: bool(node.parts))


# --- the oracle: reads names and texts with Python's own decoder ---


def oracle(node: Node, around: frozenset[str] = frozenset()) -> Node:
    below = []
    for name, value in node.below:
        decoded = json.loads(name) if name else ""
        treatment = _treatment(decoded, around)
        if treatment == "remove":
            below.append((name, Node(text="null")))
        elif treatment == "pseudonymise":
            below.append((name, Node(text=_pseudonymised(value))))
        else:
            below.append((name, oracle(value, around | {decoded} if name else around)))
    return Node(node.text, node.parts, below)


def _treatment(name: str, around: frozenset[str]) -> str:
    ancestors = {ancestor for member, ancestor in REDACTION.within if member == name}
    if ancestors and not ancestors & around:
        return ""
    if name in REDACTION.remove or (ancestors and name not in REDACTION.pseudonymise):
        return "remove"
    return "pseudonymise" if name in REDACTION.pseudonymise else ""


def _pseudonymised(value: Node) -> str:
    if value.parts:
        return "null"
    if value.text in ("null", "true", "false"):
        return value.text
    text = json.loads(value.text) if value.text.startswith('"') else value.text
    return f'"{PSEUDONYMS.of(text)}"'


def test_records_are_redacted_as_by_reading_them_byte_for_byte() -> None:
    @settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(RECORDS, min_size=1, max_size=4))
    def check(nodes: list[Node]) -> None:
        given = [node.written().encode("utf-8", "surrogatepass") for node in nodes]
        for record in given:
            json.loads(record)  # the strategy makes JSON
        expected = [oracle(node).written().encode("utf-8", "surrogatepass") for node in nodes]
        got = REDACTOR(given)
        assert got == expected
        assert [REDACTOR.one(record) for record in given] == expected, "one by one it is the same"
        assert REDACTOR(got) == got, "applied twice it is the same"
        on_lines = [record.replace(b"\r", b" ").replace(b"\n", b" ") for record in given]
        assert REDACTOR.lines(ndjson(given)) == ndjson([REDACTOR.one(line) for line in on_lines])
        for before, after, wanted in zip(given, got, expected, strict=True):
            if before == wanted:
                assert after is before

    check()


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (b'{"price":1.10,"card":{"last_4":"1111"},"a":"\\u00e9"}', b'{"price":1.10,"card":null,"a":"\\u00e9"}'),
        (b'{"name":"Tea","customer":{"name":"Ada"}}', b'{"name":"Tea","customer":{"name":null}}'),
        (b'{"customer":{"id":1},"recipient":{"name":"Ada"},"name":"Tea"}', b'{"customer":{"id":1},"recipient":{"name":null},"name":"Tea"}'),
        (b'{"customer":{"recipient":{"id":1},"name":"Ada"},"name":"Tea"}', b'{"customer":{"recipient":{"id":1},"name":null},"name":"Tea"}'),
        (b'{"customer":"Ada","name":"Tea"}', b'{"customer":"Ada","name":"Tea"}'),
        (b'{"customer":{"a":[{"b":{"name":"Ada"}}]},"name":"Tea"}', b'{"customer":{"a":[{"b":{"name":null}}]},"name":"Tea"}'),
        (b'{"text":"say \\"card\\":1","x\\"card":1}', b'{"text":"say \\"card\\":1","x\\"card":1}'),
        (b'{"c\\u0061rd":[1,"]"]}', b'{"c\\u0061rd":null}'),
        (b'{"phone":null,"customer_id":true,"card":null}', b'{"phone":null,"customer_id":true,"card":null}'),
        (b'{"phone":["a"],"customer_id":{"b":1}}', b'{"phone":null,"customer_id":null}'),
        (b'{"customer_id":""}', b'{"customer_id":""}'),
        # Not JSON: what follows a name cannot be told apart, so it goes.
        (b'{"a":1,"card":"1111', b'{"a":1,"card":null'),
        (b'{"a":1,"card":{"last_4":"1111"', b'{"a":1,"card":null'),
    ],
)  # fmt: skip
def test_examples(record: bytes, expected: bytes) -> None:
    assert REDACTOR.one(record) == expected
    assert REDACTOR.one(expected) == expected


@pytest.mark.parametrize("escape", ["", "\\u0041"])
def test_what_is_not_json_hides_nothing_of_what_is_beside_it(escape: str) -> None:
    personal = b'{"a":"%s","email_address":"ada@example.com"}' % escape.encode()
    for broken in (b'{"a":"no end', b'{"a":"no end,"email_address":"ada@example.com"}', b'"', b""):
        for records in ([broken, personal], [personal, broken], [broken, personal, broken]):
            assert b"ada@example.com" not in b"".join(map(bytes, REDACTOR([*records]))), records
            assert REDACTOR.lines(ndjson(records)).count(b"\n") == len(records), "a line stays a line"
    in_one = personal[:-1] + b',"b":"no end,"card":"1111"}'
    assert b"1111" not in REDACTOR.one(in_one)


def test_a_pseudonym_is_equal_for_what_means_the_same_and_of_one_key() -> None:
    (a,) = {PSEUDONYMS.of(text) for text in ("ada@example.com", " Ada@Example.COM\n", "ADA@EXAMPLE.COM")}
    (b,) = {PSEUDONYMS.of(text) for text in ("15556251199", "+1 (555) 625-1199", "1-555-625-1199 ")}
    assert re.fullmatch(r"hmac:[A-Za-z0-9_-]{22}", a)
    assert a != b
    assert PSEUDONYMS.of("Ada") != PSEUDONYMS.of("ada"), "identifiers are told apart by case"
    assert Pseudonyms(bytes(32)).of("ada@example.com") != a
    assert PSEUDONYMS.of(a) == a
    assert normalised("12-34") == "12-34", "too few digits for a phone number"
    assert KEY.hex() not in repr(PSEUDONYMS)
    with pytest.raises(ConfigurationError):
        Pseudonyms(b"short")


def test_numbers_become_pseudonyms_of_their_digits() -> None:
    as_number, as_text = REDACTOR([b'{"customer_id":207119551}', b'{"customer_id":"207119551"}'])
    assert as_number == as_text
    assert b"207119551" not in bytes(as_number)


def test_an_erasing_redactor_leaves_no_pseudonyms() -> None:
    eraser = Redactor(REDACTION, None)
    redacted = REDACTOR.one(b'{"customer_id":"C1","total":1.10,"phone":"5556251199"}')
    assert redacted.count(b"hmac:") == 2
    assert eraser.one(redacted) == b'{"customer_id":null,"total":1.10,"phone":null}'


def test_many_members_inside_of_one_cost_no_more_than_reading() -> None:
    record = b'{"customer":{"a":[' + b",".join([b'{"name":"Ada"}'] * 20_000) + b']},"name":"Tea"}'
    began = time.perf_counter()
    redacted = REDACTOR.one(record)
    assert time.perf_counter() - began < 2
    assert redacted.count(b'"name":null') == 20_000
    assert redacted.endswith(b'"name":"Tea"}')


def test_blanks_before_a_colon_cost_no_more_than_reading() -> None:
    record = b'{"card"' + b" " * 500_000 + b':"1111","b" : 1}'
    began = time.perf_counter()
    assert b"1111" not in REDACTOR.one(record)
    assert time.perf_counter() - began < 1


def test_names_are_found_and_nothing_else() -> None:
    # Names of all lengths, several with the same end, and longer and shorter ones that end or begin like them.
    names = ["k", "id", "card", "carded", "address", "billing_address", "shipping_address", "a_name_of_many_words_" * 4]
    others = [f"member_{n}" for n in range(5_000)]
    others += [f"x{name}" for name in names] + [f"{name}x" for name in names] + ["", "xilling_address", "dress"]
    redactor = Redactor(Redaction(remove=frozenset(names)), PSEUDONYMS)
    record = b"{" + b",".join(f'"{name}":"{name}"'.encode() for name in [*others, *names]) + b"}"
    redacted = json.loads(redactor.one(record))
    assert {name for name, value in redacted.items() if value is None} == set(names)
    assert redacted == {**json.loads(record), **dict.fromkeys(names)}
    assert Redactor(Redaction(), PSEUDONYMS).one(record) is record


def test_long_pages_are_redacted_throughout() -> None:
    records: list[Record] = [
        b'{"n":%d,"pad":"%s","customer":{"name":"A%d"},"customer_id":"C%d"}' % (n, b"x" * (n % 97), n, n % 7)
        for n in range(9_000)
    ]
    expected = [REDACTOR.one(bytes(record)) for record in records]
    assert REDACTOR(records) == expected
    assert all(b'"name":null' in bytes(record) and b"hmac:" in bytes(record) for record in expected)


def test_raw_records_of_a_decoder_are_taken_as_they_are() -> None:
    class Page(msgspec.Struct):
        orders: list[msgspec.Raw]

    given: list[Record] = [*msgspec.json.decode(b'{"orders":[{"a": 1.10},{"card": 1, "b":2}]}', type=Page).orders]
    first, second = REDACTOR(given)
    assert first is given[0]
    assert second == b'{"card": null, "b":2}'
    assert REDACTOR([]) == []
