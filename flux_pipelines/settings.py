"""The only reader of environment variables. Every setting is `FLUX_<NAME>`; docs/operations.md lists them."""

from __future__ import annotations

import os
import stat
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT_ROOT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Where Flux keeps things and how it behaves. Defaults need no server and no account."""

    model_config = SettingsConfigDict(env_prefix="FLUX_", env_file=None, extra="ignore")

    home: Path = Field(default=PROJECT_ROOT / ".flux", description="Everything Flux writes lives under this folder.")
    environment: Literal["development", "production"] = Field(
        default="development", description="In production a missing encryption key is an error, never a fresh key."
    )
    start_date: date = Field(default=date(2025, 1, 1), description="First business date of every daily partition.")
    database_url: SecretStr | None = Field(
        default=None, description="State database (SQLAlchemy URL); default: SQLite `state.db` in the home."
    )
    lake_url: str | None = Field(
        default=None, description="Lake root: a folder or `s3://bucket/prefix`; default: `lake/` in the home."
    )
    encryption_keys: SecretStr | None = Field(
        default=None, description="Fernet keys, comma-separated, newest first; default: a key file in the home."
    )
    forecast_endpoint: str = Field(default="flux-demand", description="Name of the SageMaker endpoint to ask.")
    forecast_url: str = Field(
        default="embedded",
        description="`embedded` (our own forecaster, started when needed), `aws` (boto3's own configuration, "
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME included), or the URL of a server that speaks the SageMaker Runtime "
        "protocol.",
    )
    public_url: str | None = Field(
        default=None,
        description="Where browsers and providers reach the gateway, for example `https://flux.example.com`; default: "
        "the loopback address it listens on.",
    )
    dagster_url: str | None = Field(
        default=None,
        description="Where browsers reach the Dagster UI through a reverse proxy, for example "
        "`https://dagster.example.com`; default: this machine's own names alone.",
    )
    allowed_people: str = Field(
        default="",
        description="Who may sign in: e-mail addresses and `@domains`, comma-separated. Nobody when empty.",
    )
    trusted_proxies: str = Field(
        default="",
        description="Addresses or networks of the reverse proxies whose X-Forwarded-Proto and X-Forwarded-For are "
        "believed, comma-separated.",
    )
    tls_certificate: Path | None = Field(
        default=None, description="The gateway's certificate chain (PEM), when it ends TLS itself."
    )
    tls_key: Path | None = Field(default=None, description="The private key of that certificate (PEM).")
    session_idle_minutes: int = Field(
        default=720, ge=5, le=1440, description="A signed-in person who does nothing for this long is signed out."
    )

    def make_home(self) -> Path:
        """Return the home, made if it is not there. No other user of the machine can look into it.

        One that an earlier version has made for others to read is closed to them, unless it belongs to somebody else or is a
        folder that everybody writes to.

        Raises:
            OSError: it cannot be made.

        """
        # `mkdir(parents=True)` makes those above with the process's own mode, which is usually for all to read.
        for folder in (*reversed(self.home.parents), self.home):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)
        found = self.home.stat()
        if found.st_mode & 0o077 and found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX:
            self.home.chmod(0o700)
        return self.home

    @property
    def lake_root(self) -> str:
        """The lake's root: a local path or an s3:// URL."""
        return self.lake_url or str(self.home / "lake")

    @property
    def state_url(self) -> str:
        """The SQLAlchemy URL of the state database."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.home / 'state.db'}"

    @property
    def dagster_home(self) -> Path:
        """Where the Dagster instance of this home lives."""
        return self.home / "dagster"


def of_children() -> dict[str, str]:
    """Return what the environment of a Python process that we start has beside our own's.

    It imports nothing from the folder that this one was started in: `python -m` and `python -c` would look there first, and
    an empty entry of PYTHONPATH means it too.
    """
    path = os.pathsep.join(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": path}


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the process's settings, read once. Tests that change the environment call `settings.cache_clear()`."""
    loaded = Settings()
    return loaded.model_copy(update={"home": loaded.home.expanduser().absolute()})
