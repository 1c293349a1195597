"""What a person wants to connect, as written in a form: whether it can be, and which settings follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import HTTPException, Request

from flux_pipelines.connections import check_name, parse_settings
from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.gateway.overview import connectable
from flux_pipelines.gateway.sessions import runtime_of
from flux_pipelines.providers.apps import address_of
from flux_pipelines.providers.base import Provider
from flux_pipelines.runtime import Runtime
from flux_pipelines.state.people.people import Person

_LONGEST_TENANT = 100


@dataclass(frozen=True, slots=True)
class ConnectForm:
    """What a person wants to connect. `again` authorises an existing connection again."""

    name: str = ""
    tenant: str = ""
    cutoff_hour: str = ""
    again: bool = False
    answers: Mapping[str, str] = field(default_factory=dict)  # to the provider's `connect_settings`


@dataclass(frozen=True, slots=True)
class CheckedForm:
    """What was entered, once looked at: what is wrong with it by field, the connection of that name, the settings it gets."""

    problems: Mapping[str, str]
    previous: Connection | None
    settings: Mapping[str, Any]


async def text_fields(request: Request) -> dict[str, str]:
    """Return every text of a form, without the white space around it; a dependency."""
    given = await request.form()
    return {name: value.strip() for name, value in given.items() if isinstance(value, str)}


def read_form(spec: Provider, fields: Mapping[str, str]) -> ConnectForm:
    """Return what a form asks for."""
    own = {setting.name: fields.get(setting.name, "") for setting in spec.connect_settings}
    name, tenant, hour = (fields.get(one, "") for one in ("name", "tenant", "cutoff_hour"))
    return ConnectForm(name, tenant, hour, fields.get("again") == "yes", own)


def spec_of(name: str) -> Provider:
    """Return the provider of that name that accounts are connected at here: there is no page for others."""
    for spec in connectable():
        if spec.name == name:
            return spec
    raise HTTPException(404)


def form_values(
    request: Request, person: Person, spec: Provider, entered: ConnectForm, problems: Mapping[str, str]
) -> dict[str, Any]:
    """Return what the pages with a form show."""
    runtime = runtime_of(request)
    cutoff = next((setting for setting in spec.settings if setting.name == "cutoff_hour"), None)
    return {
        "person": person,
        "here": "connections",
        "spec": spec,
        "entered": entered,
        "problems": problems,
        "tenants": sorted({connection.tenant for connection in runtime.state.connections.list()}),
        "cutoff": cutoff,
        "registered": runtime.state.apps.get(spec.name) is not None,
    }


def check_form(runtime: Runtime, spec: Provider, entered: ConnectForm) -> CheckedForm:
    """Look at what was entered before anybody is sent away or any secret is used."""
    problems: dict[str, str] = {}
    key = f"{spec.name}:{entered.name}"
    previous = None
    try:
        previous = check_name(runtime, key, again=entered.again)
    except ConfigurationError as problem:
        problems["name"] = (
            "There is a connection of that name already: choose another."
            if problem.connection
            else "Use lower-case letters, digits, - and _ only, at most 63, beginning with a letter or digit."
        )
    if entered.again and previous is None:
        problems.setdefault("name", "There is no connection of that name.")
    if previous is not None and not entered.again:
        problems["name"] = f"There is a connection of that name already. Reconnect it from its own page: {key}."
    if previous is None and not (0 < len(entered.tenant) <= _LONGEST_TENANT and entered.tenant.isprintable()):
        problems["tenant"] = f"Say whose account it is, in at most {_LONGEST_TENANT} characters."
    settings: dict[str, Any] = {}
    if any(setting.name == "base_url" for setting in spec.settings):
        template, answers = _address(runtime, spec, entered, previous)
        try:
            settings["base_url"] = address_of(spec, template, answers)
        except ConfigurationError as problem:
            setting, _, meaning = problem.what.partition(": ")
            problems[setting] = meaning
    if entered.cutoff_hour and not entered.again and "name" not in problems:
        try:
            settings |= parse_settings(key, {"cutoff_hour": int(entered.cutoff_hour)})
        except (ValueError, ConfigurationError):
            problems["cutoff_hour"] = "Give a full hour from 0 to 23, or leave it empty."
    return CheckedForm(problems, previous, settings)


def _address(
    runtime: Runtime, spec: Provider, entered: ConnectForm, previous: Connection | None
) -> tuple[str, Mapping[str, Any]]:
    """Return where the account's API answers and what fills the places in it: never anywhere that only the form says."""
    if previous is not None and (spec.connect_settings or spec.oauth is None):  # an account does not move
        known = spec.settings_of(previous)
        return str(known["base_url"]), known
    # The account lives where the app is registered. Credentials need no app, but one may say where they are good.
    app = runtime.app(spec.name) if spec.oauth is not None else runtime.state.apps.get(spec.name)
    return spec.base_url if app is None else str(app.settings.get("base_url", spec.base_url)), entered.answers
