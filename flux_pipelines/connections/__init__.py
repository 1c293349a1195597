"""Connecting an account: check what was given, store it encrypted, prove that it works. No Dagster."""

from flux_pipelines.connections.accounts import (
    add_with_secrets,
    check_name,
    connect_with_code,
    needs_test,
    parse_settings,
    reconfigure,
)
from flux_pipelines.connections.lifecycle import disconnect
from flux_pipelines.connections.sandbox import (
    connect_to_sandbox,
    reconnect_to_sandbox,
    sandbox_accounts,
    sandbox_last_day,
)

__all__ = [
    "add_with_secrets",
    "check_name",
    "connect_to_sandbox",
    "connect_with_code",
    "disconnect",
    "needs_test",
    "parse_settings",
    "reconfigure",
    "reconnect_to_sandbox",
    "sandbox_accounts",
    "sandbox_last_day",
]
