"""How a gateway is reached, and by whom. Refuses whatever would put sessions on the network in clear text."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

from flux_pipelines.domain.addresses import email_of, is_loopback, origin_of
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.gateway.protocol import WRITE_SECONDS
from flux_pipelines.settings import Settings

DEFAULT_PORT = 8410
HEAD_SECONDS = 10.0
BODY_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class AllowedPeople:
    """The e-mail addresses and domains that may sign in."""

    emails: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> AllowedPeople:
        """Read `ada@example.com, @example.org`.

        Raises:
            ConfigurationError: an entry is neither an address nor a domain.

        """
        entries: list[str] = []
        for given in filter(None, (part.strip() for part in text.split(","))):
            try:
                entries.append(email_of(given))
            except ValueError:
                raise ConfigurationError(
                    f"FLUX_ALLOWED_PEOPLE has the entry {given!r}",
                    next_step="Write e-mail addresses (ada@example.com) and domains (@example.com), comma-separated; "
                    "domains in lower case or as they are registered (xn--...).",
                ) from None
        return cls(
            frozenset(entry for entry in entries if not entry.startswith("@")),
            frozenset(entry[1:] for entry in entries if entry.startswith("@")),
        )

    def __bool__(self) -> bool:
        return bool(self.emails or self.domains)

    def allows(self, email: str) -> bool:
        """Tell whether the owner of this (verified) address may sign in. Sub-domains are other domains."""
        try:
            wanted = email_of(email)
        except ValueError:
            return False
        local, _, domain = wanted.rpartition("@")
        return bool(local) and (wanted in self.emails or domain in self.domains)

    def allows_token_of(self, person: str | None) -> bool:
        """Tell whether an API token of this person is good: it ends with who made it. None: of the command line."""
        return person is None or self.allows(person)


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """What a gateway needs to know beside the opened rooms. Made by `gateway_options`.

    Args:
        public_url: scheme, host and port under which browsers and providers reach it; no path.
        host: the address to listen on.
        port: the port to listen on; 0 for any free one.
        allowed_people: who may sign in.
        trusted_proxies: addresses and networks whose forwarding headers are believed.
        tls_certificate: the certificate chain, when the gateway ends TLS itself.
        tls_key: its private key.
        session_idle_minutes: a person who does nothing for this long is signed out.
        max_body_bytes: the largest body of a request that is not a webhook.
        head_seconds: the longest a request may take to send its head.
        body_seconds: the longest a request may take to send its body.
        write_seconds: the longest an answer may stay unread.

    """

    public_url: str
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    allowed_people: AllowedPeople = field(default_factory=AllowedPeople)
    trusted_proxies: tuple[str, ...] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    session_idle_minutes: int = 720
    max_body_bytes: int = 256 * 1024
    head_seconds: float = HEAD_SECONDS
    body_seconds: float = BODY_SECONDS
    write_seconds: float = WRITE_SECONDS

    @property
    def secure(self) -> bool:
        """Whether browsers reach it through TLS."""
        return self.public_url.startswith("https://")

    @property
    def public_host(self) -> str:
        """Host and port as a browser writes them in `Host`."""
        return urlsplit(self.public_url).netloc

    def url(self, path: str) -> str:
        """Return the public URL of a path, exactly as registered at providers."""
        return self.public_url + path


def gateway_options(settings: Settings, *, host: str = "127.0.0.1", port: int = DEFAULT_PORT) -> GatewayOptions:
    """Put the settings of a gateway together and check that they are safe to serve.

    Args:
        settings: the process's settings.
        host: the address to listen on.
        port: the port to listen on, already known (0 only with a public URL of its own).

    Raises:
        ConfigurationError: it would serve others than this machine without TLS, or the settings contradict each other.

    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if (certificate is None) != (key is None):
        raise ConfigurationError("FLUX_TLS_CERTIFICATE and FLUX_TLS_KEY only make sense together")
    for file in (certificate, key):
        if file is not None and not file.is_file():
            raise ConfigurationError(f"there is no file {file}", next_step="See FLUX_TLS_CERTIFICATE and FLUX_TLS_KEY.")
    proxies = _proxies(settings.trusted_proxies)
    if not is_loopback(host) and certificate is None and not proxies:
        raise ConfigurationError(
            f"the gateway does not listen on {host} without TLS: session cookies would cross the network for all to read",
            next_step="Give it FLUX_TLS_CERTIFICATE and FLUX_TLS_KEY, or name the reverse proxy that ends TLS in "
            "FLUX_TRUSTED_PROXIES, or listen on 127.0.0.1.",
        )
    scheme = "https" if certificate is not None else "http"
    default = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    if settings.public_url is None and not is_loopback(host):
        raise ConfigurationError(
            "the gateway does not know its own address",
            next_step="Set FLUX_PUBLIC_URL to what browsers and providers call it, such as https://flux.example.com.",
        )
    public_url = origin_of(settings.public_url or default, "FLUX_PUBLIC_URL")
    if public_url.startswith("https://"):
        if certificate is None and not proxies:
            raise ConfigurationError(
                f"{public_url} needs TLS, and nothing here ends it",
                next_step="Give FLUX_TLS_CERTIFICATE and FLUX_TLS_KEY, or name the reverse proxy that ends TLS in "
                "FLUX_TRUSTED_PROXIES.",
            )
    elif certificate is not None or not is_loopback(urlsplit(public_url).hostname or ""):
        raise ConfigurationError(f"FLUX_PUBLIC_URL is {public_url}: it must begin with https://")
    return GatewayOptions(
        public_url=public_url,
        host=host,
        port=port,
        allowed_people=AllowedPeople.parse(settings.allowed_people),
        trusted_proxies=proxies,
        tls_certificate=certificate,
        tls_key=key,
        session_idle_minutes=settings.session_idle_minutes,
    )


def _proxies(text: str) -> tuple[str, ...]:
    entries = tuple(entry.strip() for entry in text.split(",") if entry.strip())
    for entry in entries:
        try:
            network = ip_network(entry)
        except ValueError:
            network = None
        if network is None or network.prefixlen == 0:
            # `*` and 0.0.0.0/0 would let any stranger say that the request came through TLS.
            raise ConfigurationError(
                f"FLUX_TRUSTED_PROXIES has the entry {entry!r}",
                next_step="Write the addresses or networks of your own proxies, such as 10.0.0.5 or 10.0.0.0/24.",
            )
    return entries
