"""The people of the seeded world: customers and employees, with everything about them that must never reach the lake.

A tenant's people are one circle: the same person can be a customer or an employee at several of its merchants, each time
under another id. Names, streets and mail domains are made up, and unlike anything that is sold.
"""

from __future__ import annotations

import zlib
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from flux_sandbox.ids import made
from flux_sandbox.model import Customer, Employee

if TYPE_CHECKING:
    from flux_sandbox.model import Merchant, Sale

_GIVEN = (
    *(
        "Thessaly",
        "Orsolya",
        "Bertrand",
        "Ignatius",
        "Winifred",
        "Casimir",
        "Philippa",
        "Leocadia",
        "Anselm",
        "Rosamund",
    ),
    *("Evander", "Hyacinth", "Tiberius", "Marguerite", "Octavian", "Seraphina", "Lysander", "Gwendolen", "Barnaby"),
    *("Isolde", "Cornelius", "Ottoline", "Percival", "Drusilla", "Zebediah", "Hermione", "Leopold", "Calliope"),
)
_FAMILY = (
    *("Quennell", "Abernethy", "Wexcombe", "Halloran", "Okonjo", "Vasquelle", "Tremlett", "Ironmonger", "Szablewski"),
    *("Farquharson", "Delacourt", "Grimsditch", "Nakagusuku", "Pemberthy", "Lindqvistson", "Oyelaran", "Thistlewood"),
    *("Bramhallow", "Castellanis", "Dunwoodie", "Eskelundin", "Fotheringay", "Haverstocke", "Jellicoe", "Kirkbridge"),
)
_STREETS = ("Wrenfield Terrace", "Ashcombe Crescent", "Larkspur Parade", "Old Tannery Row", "Millrace Gardens")
_DIALLED = {"US": "+1206555", "JP": "+8150555", "FI": "+35845555"}
_JOBS = (("Barista", 1.0), ("Cashier", 0.9), ("Cook", 1.2), ("Server", 0.6), ("Shift Manager", 1.6))
_WAGES = {"USD": 1750, "JPY": 1200, "EUR": 1420}
CIRCLE = 60  # people a tenant knows


class Person(NamedTuple):
    """Somebody, whoever they are to a merchant."""

    given_name: str
    family_name: str
    email: str
    phone: str
    street: str
    card_first6: str
    card_last4: str


def circle(seed: int, tenant: str, country: str) -> list[Person]:
    """Return the people whom a tenant knows; no two have a name, an address or a number in common."""
    rng = Random(f"{seed}|people|{tenant}")  # noqa: S311
    names = rng.sample([(given, family) for given in _GIVEN for family in _FAMILY], CIRCLE)
    numbers = rng.sample(range(1000, 10_000), CIRCLE)
    people = []
    for (given, family), number in zip(names, numbers, strict=True):
        mail = f"{given}.{family}{number % 97}@{tenant}-post.example".lower()
        street = f"{rng.randrange(100, 990)} {rng.choice(_STREETS)}"
        bank = rng.choice(("411773", "542418", "374245"))
        people.append(
            Person(given, family, mail, f"{_DIALLED[country]}{number}", street, bank, f"{rng.randrange(10_000):04d}")
        )
    return people


def settle(seed: int, merchant: Merchant) -> None:
    """Give a merchant its customers, and employees when it has a staff: half of each are other merchants' too."""
    people = circle(seed, merchant.tenant, merchant.country)
    rng = Random(f"{seed}|settle|{merchant.id}")  # noqa: S311
    first = merchant.locations[0]
    shared, own = people[:12], people[12:40]
    for person in [*shared, *rng.sample(own, 14)]:
        merchant.customers.append(
            Customer(
                made(merchant.id_style, seed, merchant.id, "customer", person.email),
                person.given_name,
                person.family_name,
                person.email,
                person.phone,
                person.street,
                first.city,
                first.region,
                first.postal_code,
                merchant.country,
                person.card_first6,
                person.card_last4,
            )
        )
    staff = people[40:]
    count = min(len(staff), 3 + 2 * len(merchant.locations))
    # The first of them work for every merchant of the tenant.
    chosen = [*staff[:3], *rng.sample(staff[3:], count - 3)]
    for index, person in enumerate(chosen):
        job, factor = _JOBS[index % len(_JOBS)]
        merchant.employees.append(
            Employee(
                made(merchant.id_style, seed, merchant.id, "employee", person.email),
                person.given_name,
                person.family_name,
                person.email,
                person.phone,
                made(merchant.id_style, seed, merchant.id, "job", job),
                job,
                round(_WAGES[merchant.currency] * factor),
            )
        )


def assign_customer(merchant: Merchant, sale: Sale) -> None:
    """Let most online sales and a quarter of the others have a customer, by the sale's id: money never hangs on it."""
    chance = zlib.crc32(sale.id.encode())
    percent = 90 if sale.source == merchant.online else 25
    if merchant.customers and chance % 100 < percent and not sale.returns and sale.lines:
        sale.customer = merchant.customers[chance // 100 % len(merchant.customers)]


def personal(merchants: list[Merchant]) -> dict[str, list[str]]:
    """Return every text about a person that must not be in the lake, by what it is."""
    found: dict[str, set[str]] = {
        name: set() for name in ("names", "emails", "phones", "streets", "card_first6", "card_last4")
    }
    for merchant in merchants:
        everybody: list[Customer | Employee] = [*merchant.customers, *merchant.employees]
        for person in everybody:
            found["names"] |= {person.given_name, person.family_name}
            found["emails"].add(person.email)
            found["phones"].add(person.phone)
        for customer in merchant.customers:
            found["streets"].add(customer.street)
            found["card_first6"].add(customer.card_first6)
            found["card_last4"].add(customer.card_last4)
    return {name: sorted(texts) for name, texts in found.items()}
