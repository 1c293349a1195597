"""What is personal in the records of a provider."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Redaction:
    """What is personal in a provider's records, by the names of JSON members, wherever in a record they are.

    It is applied before a record is stored anywhere. What other members hold is left exactly as received.

    Args:
        remove: members whose value, whatever it is, becomes null.
        pseudonymise: members whose text becomes a keyed hash: equal texts stay equal, nobody can read them back.
        within: members of the first name are treated so only inside a member of the second (`("name", "customer")`),
            where a name alone would mean too much.

    """

    remove: frozenset[str] = frozenset()
    pseudonymise: frozenset[str] = frozenset()
    within: frozenset[tuple[str, str]] = frozenset()
