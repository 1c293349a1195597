"""A gateway that would put sessions on the network in clear text does not start."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flux_pipelines.cli import app
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.gateway.options import AllowedPeople, gateway_options
from flux_pipelines.gateway.server import serve
from flux_pipelines.settings import Settings
from flux_pipelines.settings import settings as process_settings


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    file = tmp_path / "some.pem"
    file.write_text("not looked into here")
    return file


def given(**changes: object) -> Settings:
    return Settings(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_needs_nothing(host: str) -> None:
    options = gateway_options(given(), host=host, port=8410)

    assert not options.secure
    assert options.public_host == ("[::1]:8410" if host == "::1" else f"{host}:8410")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "flux.example.com", "10.0.0.1", ""])
def test_anything_else_needs_tls_or_a_trusted_proxy(host: str) -> None:
    with pytest.raises(ConfigurationError, match="without TLS") as refused:
        gateway_options(given(public_url="https://flux.example.com"), host=host)
    assert "FLUX_TRUSTED_PROXIES" in refused.value.next_step


def test_the_command_refuses_before_it_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLUX_HOME", str(tmp_path / "home"))
    process_settings.cache_clear()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    try:
        result = CliRunner().invoke(app, ["gateway", "--host", "0.0.0.0", "--port", str(port)])
    finally:
        process_settings.cache_clear()

    assert result.exit_code != 0
    assert isinstance(result.exception, ConfigurationError)
    assert "without TLS" in str(result.exception)
    assert not (tmp_path / "home").exists()


def test_a_certificate_makes_it_https(pem: Path) -> None:
    options = gateway_options(
        given(tls_certificate=pem, tls_key=pem, public_url="https://flux.example.com"), host="0.0.0.0"
    )

    assert options.secure
    assert options.url("/webhooks/square") == "https://flux.example.com/webhooks/square"


def test_a_proxy_lets_it_listen_elsewhere() -> None:
    options = gateway_options(
        given(trusted_proxies="10.0.0.5, 10.1.0.0/16", public_url="https://flux.example.com"), host="0.0.0.0"
    )

    assert options.trusted_proxies == ("10.0.0.5", "10.1.0.0/16")


@pytest.mark.parametrize("proxies", ["*", "0.0.0.0/0", "::/0", "10.0.0.5, *", "proxy.example.com", "10.0.0.0/33"])
def test_not_everybody_can_be_a_trusted_proxy(proxies: str) -> None:
    with pytest.raises(ConfigurationError, match="FLUX_TRUSTED_PROXIES"):
        gateway_options(given(trusted_proxies=proxies))


@pytest.mark.parametrize(
    ("changes", "host", "said"),
    [
        ({"public_url": "https://flux.example.com"}, "127.0.0.1", "nothing here ends it"),
        ({"public_url": "http://flux.example.com"}, "127.0.0.1", "must begin with https"),
        ({"public_url": "http://flux.example.com", "trusted_proxies": "10.0.0.5"}, "0.0.0.0", "must begin with https"),
        ({"trusted_proxies": "10.0.0.5"}, "0.0.0.0", "does not know its own address"),
        ({"public_url": "https://flux.example.com/flux", "trusted_proxies": "10.0.0.5"}, "0.0.0.0", "not the address"),
        ({"public_url": "https://user@flux.example.com", "trusted_proxies": "10.0.0.5"}, "0.0.0.0", "not the address"),
        ({"public_url": "https://flux.example.com:port", "trusted_proxies": "::1"}, "0.0.0.0", "not the address"),
        ({"public_url": "https://flux.example.com?x=1", "trusted_proxies": "::1"}, "0.0.0.0", "not the address"),
        ({"public_url": "ftp://flux.example.com"}, "127.0.0.1", "not the address"),
        ({"public_url": "flux.example.com"}, "127.0.0.1", "not the address"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, str], host: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        gateway_options(given(**changes), host=host)


def test_a_certificate_needs_its_key_and_both_must_be_there(pem: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="only make sense together"):
        gateway_options(given(tls_certificate=pem))
    with pytest.raises(ConfigurationError, match="there is no file"):
        gateway_options(given(tls_certificate=pem, tls_key=tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="must begin with https"):
        gateway_options(given(tls_certificate=pem, tls_key=pem, public_url="http://127.0.0.1:8410"))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("https://Flux.Example.com/", "https://flux.example.com"),
        ("https://flux.example.com:443", "https://flux.example.com"),
        ("https://flux.example.com:8443", "https://flux.example.com:8443"),
        ("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443"),
    ],
)
def test_the_public_url_is_written_as_browsers_write_it(written: str, meant: str) -> None:
    options = gateway_options(given(public_url=written, trusted_proxies="10.0.0.5"))

    assert options.public_url == meant


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}"):
            serve(given(home=tmp_path), port=port, ready=lambda _: None)


# --- who may sign in ---


@pytest.mark.parametrize(
    ("email", "admitted"),
    [
        ("ada@example.com", True),
        ("ADA@Example.COM", True),
        ("anybody@example.org", True),
        ("grace@example.com", False),
        ("ada@example.com.evil.example", False),
        ("x@mail.example.org", False),
        ("x@notexample.org", False),
        ("@example.org", False),
        ("evil@evil.example@example.org", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_the_allow_list_admits_addresses_and_domains_exactly(email: str, admitted: bool) -> None:
    assert AllowedPeople.parse(" ada@example.com ,@Example.org,").allows(email) is admitted


@pytest.mark.parametrize(
    ("listed", "email", "admitted"),
    [
        ("@strasse.example", "x@straße.example", False),
        ("@straße.example", "x@strasse.example", False),
        ("@straße.example", "x@Straße.example", True),
        ("@straße.example", "x@xn--strae-oqa.example", True),
        ("@XN--strae-oqa.example", "x@straße.example", True),
        ("@example.com", "x@example.c\u1d0fm", False),
        ("@kelvin.example", "x@\u212aelvin.example", False),
        ("@example.com", "x@ex\uff41mple.com", False),
        ("@example.com", "x@exam\u00adple.com", False),
        ("strasse@example.com", "straße@example.com", False),
        ("kelvin@example.com", "\u212aelvin@example.com", False),
        ("@example.com", "command line (x)@example.com", False),
        ("@example.com", "x@" + "ä" * 300, False),
    ],
)
def test_no_other_domain_or_address_is_taken_for_one_that_is_listed(listed: str, email: str, admitted: bool) -> None:
    assert AllowedPeople.parse(listed).allows(email) is admitted


def test_an_empty_allow_list_admits_nobody() -> None:
    nobody = AllowedPeople.parse("")

    assert not nobody
    assert not nobody.allows("ada@example.com")


@pytest.mark.parametrize(
    "text", ["example.com", "ada@", "@", "*", "a@b@c", "ada example.com@x", "@\u212aelvin.example", "@ä..example"]
)
def test_an_entry_that_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="FLUX_ALLOWED_PEOPLE"):
        AllowedPeople.parse(text)
