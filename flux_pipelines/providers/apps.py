"""What has to be known of Flux's own registration (its app) at each provider that connects by OAuth, and at each
identity provider that people sign in with.
"""  # noqa: D205

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from flux_pipelines.domain.addresses import is_loopback
from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.providers.base import Provider, Setting
from flux_pipelines.providers.registry import all_providers

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class AppKind:
    """A place where Flux can be registered: which settings, and which secrets must or may be given."""

    name: str
    title: str
    settings: tuple[Setting, ...]
    secrets: tuple[str, ...]
    optional_secrets: tuple[str, ...] = ()


_IDENTITY = (
    AppKind(
        "google",
        "Google",
        (
            Setting("issuer", "https://accounts.google.com", "Whose identity tokens are accepted."),
            Setting("hosted_domain", "", "Only people of this Google Workspace domain; empty for all."),
        ),
        ("client_id", "client_secret"),
    ),
    AppKind(
        "github",
        "GitHub",
        (
            Setting("base_url", "https://github.com", "Where people sign in."),
            Setting("api_url", "https://api.github.com", "Where the API answers."),
        ),
        ("client_id", "client_secret"),
    ),
)


def app_kinds() -> dict[str, AppKind]:
    """Return every place where Flux can be registered, by name."""
    found = {
        spec.name: AppKind(
            spec.name,
            spec.title,
            (
                Setting("base_url", spec.base_url, "Where the provider answers."),
                Setting("notification_url", "", "The webhook address, exactly as it is registered at the provider."),
            ),
            *_secrets_of(spec),
        )
        for spec in all_providers().values()
        if spec.oauth is not None or spec.webhooks is not None
    }
    found.update({kind.name: kind for kind in _IDENTITY})
    return found


def address_of(spec: Provider, template: str, answers: Mapping[str, str]) -> str:
    """Fill in what people said before connecting (`connect_settings`): `https://{shop}.myshopify.com`.

    An answer may be the whole host as well as its part: `acme` and `acme.myshopify.com` mean the same.

    Raises:
        ConfigurationError: an answer is missing or could not be a part of a host's name.

    """
    for setting in spec.connect_settings:
        hole = f"{{{setting.name}}}"
        if hole not in template:
            continue
        rest = (urlsplit(template).netloc.partition(hole)[2] or "").lower()
        said = str(answers.get(setting.name, "")).strip().lower().removeprefix("https://").rstrip("/")
        label = said.removesuffix(rest) if rest else said
        # A label and nothing more: else a form could send people, and our secret, anywhere.
        if not _LABEL.fullmatch(label):
            raise ConfigurationError(f"{setting.name}: {setting.meaning}")
        template = template.replace(hole, label)
    return template


def place_of(spec: Provider, connection: Connection) -> str:
    """Return where a connection's account is: its address, filled in with its own settings.

    Raises:
        ConfigurationError: the address asks for a setting that the connection does not have.

    """
    known = spec.settings_of(connection)
    return address_of(spec, str(known.get("base_url", spec.base_url)), known)


def _secrets_of(spec: Provider) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the secrets that a registration must and may have."""
    if spec.oauth is None:  # there is only a webhook subscription: machine clients' credentials are the connections'
        return ("webhook_signature_key",), ()
    key = ("webhook_signature_key",) if spec.webhooks else ()
    if spec.pkce == "without_secret":
        return ("client_id",), ("client_secret", *key)
    return ("client_id", "client_secret"), key


def check_app(name: str, settings: Mapping[str, Any], secrets: Mapping[str, Any]) -> None:
    """Check a registration before it is stored. No value of a secret is repeated in an error.

    Raises:
        ConfigurationError: an unknown name, a missing secret, a wrong type, or an address that is not HTTPS.

    """
    kinds = app_kinds()
    kind = kinds.get(name)
    if kind is None:
        raise ConfigurationError(
            f"Flux cannot be registered at {name!r}", next_step=f"Known: {', '.join(sorted(kinds))}."
        )
    known = [setting.name for setting in kind.settings]
    for setting, value in settings.items():
        if setting not in known:
            raise ConfigurationError(
                f"an app at {kind.title} has no setting {setting!r}", next_step=f"Known: {', '.join(known)}."
            )
        if not isinstance(value, str):
            raise ConfigurationError(f"the setting {setting} must be a text")
        if setting.endswith("_url") or setting == "issuer":
            _check_url(setting, value)
    allowed = {*kind.secrets, *kind.optional_secrets}
    missing, strange = set(kind.secrets) - set(secrets), set(secrets) - allowed
    if missing or strange:
        may = f", and may have {', '.join(kind.optional_secrets)}" if kind.optional_secrets else ""
        raise ConfigurationError(
            f"the secrets {{{', '.join(sorted(secrets))}}} are not those of an app at {kind.title}",
            next_step=f"It has {', '.join(kind.secrets)}{may}.",
        )
    if not all(isinstance(value, str) and value.strip() for value in secrets.values()):
        raise ConfigurationError("every secret must be a text that is not empty")


def _check_url(setting: str, value: str) -> None:
    try:
        parts = urlsplit(value)
        host = parts.hostname or ""
    except ValueError:
        raise ConfigurationError(f"the setting {setting} is not a URL") from None
    # Secrets and people are sent there: in clear only to this machine.
    if not host or parts.scheme not in (("http", "https") if is_loopback(host) else ("https",)):
        raise ConfigurationError(f"the setting {setting} must be a URL that starts with https://")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError(f"the setting {setting} must be a URL without user, query or fragment")
