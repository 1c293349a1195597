from __future__ import annotations

import os
import signal
import stat
import time
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select, text

from flux_pipelines.domain.connection import Connection
from flux_pipelines.domain.errors import ConfigurationError, DecryptionError
from flux_pipelines.state import State, Vault, generate_key, load_keys
from flux_pipelines.state.models import AppSecretRow, AuthorizationRow, Base, CredentialRow
from flux_pipelines_tests.state import workers
from flux_pipelines_tests.state.processes import alone, together


def key_ids_in_use(state: State) -> set[str]:
    with state.database.reading() as session:
        return set(session.scalars(select(CredentialRow.key_id)))


# --- the vault alone ---


def test_what_is_encrypted_is_decrypted_with_any_of_the_keys() -> None:
    old, new = generate_key(), generate_key()
    ciphertext, used = Vault([old]).encrypt("geheim ñ")
    vault = Vault([new, old])
    assert vault.decrypt(ciphertext) == "geheim ñ"
    assert vault.key_ids[1] == used
    assert vault.encrypt("x")[1] == vault.key_ids[0]
    assert "geheim" not in ciphertext


def test_a_wrong_key_names_the_connection_and_not_the_secret() -> None:
    ciphertext, _ = Vault([generate_key()]).encrypt("geheim")
    with pytest.raises(DecryptionError, match="square:acme") as caught:
        Vault([generate_key()]).decrypt(ciphertext, connection="square:acme")
    assert "FLUX_ENCRYPTION_KEYS" in str(caught.value)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("keys", [[], ["not-a-key-hunter2"], ["ñ"], [Fernet.generate_key().decode(), "hunter2"]])
def test_what_is_not_a_key_is_refused_without_repeating_it(keys: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="flux keys generate") as caught:
        Vault(keys)
    assert "hunter2" not in str(caught.value) + repr(caught.value.__cause__)


def test_keys_do_not_show() -> None:
    key = generate_key()
    vault = Vault([key])
    assert key not in repr(vault)
    assert key not in str(vars(vault))


# --- where keys come from ---


def test_configured_keys_are_used_newest_first_and_no_file_is_made(key_file: Path) -> None:
    new, old = generate_key(), generate_key()
    assert load_keys(f" {new} ,{old},", key_file, production=True) == (new, old)
    assert not key_file.exists()


@pytest.mark.parametrize("keys", [None, "", "  "])
def test_in_production_a_missing_key_is_an_error_and_never_a_fresh_key(keys: str | None, key_file: Path) -> None:
    with pytest.raises(ConfigurationError, match="FLUX_ENCRYPTION_KEYS"):
        load_keys(keys, key_file, production=True)
    key_file.parent.mkdir(exist_ok=True)
    key_file.touch(0o600)
    with pytest.raises(ConfigurationError):
        load_keys(keys, key_file, production=True)


def test_a_key_file_is_made_once_for_this_user_only(key_file: Path) -> None:
    before = os.umask(0o000)
    try:
        first = load_keys(None, key_file, production=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert load_keys(None, key_file, production=False) == first
    assert load_keys("", key_file, production=False) == first


def test_processes_that_race_for_the_key_file_agree_on_one_key(key_file: Path) -> None:
    outcomes = together(16, workers.make_keys, key_file)
    assert len(set(outcomes)) == 1
    assert outcomes[0] == load_keys(None, key_file, production=False)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622])
def test_a_key_file_that_others_can_use_is_refused_with_the_command_that_helps(key_file: Path, mode: int) -> None:
    load_keys(None, key_file, production=False)
    key_file.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {key_file}"):
        load_keys(None, key_file, production=False)


@pytest.mark.parametrize("content", ["", "\n\n", generate_key()[:20]], ids=["empty", "blank", "cut off"])
def test_an_empty_or_cut_off_key_file_is_never_replaced(
    key_file: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_file.parent.mkdir(exist_ok=True)
    key_file.touch(0o600)
    key_file.write_text(content)
    real = time.monotonic
    ticks = iter(range(0, 1000, 4))
    monkeypatch.setattr(time, "monotonic", lambda: real() + next(ticks))
    with pytest.raises(ConfigurationError, match="empty or cut off"):
        load_keys(None, key_file, production=False)
    assert key_file.read_text() == content


def test_a_key_file_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="key file"):
        load_keys(None, tmp_path / "file" / "keys", production=False)


# --- rotation ---


def test_rotation_puts_a_new_key_in_front_and_encrypts_everything_with_it(
    state: State, acme: str, key_file: Path
) -> None:
    state.secrets.put(acme, {"access_token": "a", "refresh_token": "b"})
    first = state.vault.key_ids
    assert state.rotate_keys() == 2
    assert state.vault.key_ids[1:] == first
    assert key_ids_in_use(state) == {state.vault.key_ids[0]}
    assert len(key_file.read_text().splitlines()) == 2
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert state.rotate_keys(drop_old=True) == 2
    assert len(key_file.read_text().splitlines()) == 1
    assert state.secrets.get(acme, purpose="test") == {"access_token": "a", "refresh_token": "b"}
    assert [p.name for p in key_file.parent.iterdir() if "keys" in p.name] == ["keys"]


def test_a_rotation_that_is_killed_leaves_no_old_key_once_old_keys_are_dropped(
    state: State, acme: str, database_url: str, key_file: Path
) -> None:
    state.secrets.put(acme, {"access_token": "a"})
    (old,) = key_file.read_text().split()
    worker, _ = alone(workers.rotate_and_die, database_url, key_file)
    worker.join(30)
    assert worker.exitcode == -signal.SIGKILL
    assert [old in p.read_text() for p in key_file.parent.glob(".keys.*")] == [True], "it was killed where it matters"
    state.rotate_keys(drop_old=True)
    assert [p for p in key_file.parent.iterdir() if p.is_file() and old.encode() in p.read_bytes()] == []
    assert state.secrets.get(acme, purpose="test") == {"access_token": "a"}


def test_rotation_encrypts_what_apps_and_round_trips_hold_too(state: State, acme: str, key_file: Path) -> None:
    state.secrets.put(acme, {"access_token": "a"})
    state.apps.put("square", {}, {"client_id": "i", "client_secret": "s"})
    trip = state.authorizations.begin("connect", "square", session="s", payload={"verifier": "v"})
    assert state.rotate_keys(drop_old=True) == 4
    assert len(key_file.read_text().splitlines()) == 1
    newest = state.vault.key_ids[0]
    with state.database.reading() as session:
        for model in (CredentialRow, AppSecretRow, AuthorizationRow):
            assert set(session.scalars(select(model.key_id))) == {newest}
    assert state.apps.secrets("square", purpose="test") == {"client_id": "i", "client_secret": "s"}
    assert state.authorizations.redeem(trip, "connect", "square", "s") == {"verifier": "v"}


@pytest.mark.parametrize("table", ["app_secrets", "authorizations"])
def test_the_old_key_stays_while_anything_cannot_be_decrypted(state: State, key_file: Path, table: str) -> None:
    state.apps.put("square", {}, {"client_secret": "s"})
    state.authorizations.begin("connect", "square", session="s", payload={})
    foreign, _ = Vault([generate_key()]).encrypt("x")
    with state.database.session() as session:
        session.execute(text(f"UPDATE {table} SET ciphertext = :c, key_id = 'foreign'"), {"c": foreign})
    with pytest.raises(DecryptionError, match="apps/square" if table == "app_secrets" else "authorizations/square"):
        state.rotate_keys(drop_old=True)
    assert len(key_file.read_text().splitlines()) == 2


def test_every_table_that_holds_ciphertext_is_rotated() -> None:
    from flux_pipelines.state.credentials.secrets import _ENCRYPTED

    holding = {name for name, table in Base.metadata.tables.items() if "key_id" in table.columns}
    assert {model.__tablename__ for model, _ in _ENCRYPTED} == holding


def test_a_process_that_runs_during_a_rotation_keeps_reading_and_writing(
    state: State, acme: str, database_url: str, key_file: Path
) -> None:
    state.secrets.put(acme, {"access_token": "a"})
    with workers.open_state(database_url, key_file) as other:
        assert other.secrets.get(acme, purpose="test") == {"access_token": "a"}
        state.rotate_keys(drop_old=True)
        assert other.secrets.get(acme, purpose="test") == {"access_token": "a"}
        state.rotate_keys(drop_old=True)
        other.secrets.put(acme, {"access_token": "b"})
    assert state.secrets.get(acme, purpose="test") == {"access_token": "b"}
    assert key_ids_in_use(state) == {state.vault.key_ids[0]}


def test_nothing_is_unreadable_while_keys_rotate_under_readers_and_writers(
    state: State, acme: str, database_url: str, key_file: Path
) -> None:
    state.secrets.put(acme, {"access_token": "a", "other": "constant"})
    outcomes = together(5, workers.use_secrets, database_url, key_file, acme, 2.5)
    assert all(isinstance(rounds, int) and rounds > 0 for rounds in outcomes), outcomes


def test_keys_from_the_environment_are_rotated_by_configuration(database_url: str) -> None:
    old, new = generate_key(), generate_key()
    with State.open(database_url, Vault([old])) as state:
        state.connections.add(Connection("square:acme", "acme"), {"access_token": "a"})
        assert state.rotate_keys() == 0
    with State.open(database_url, Vault([new, old])) as state:
        assert state.rotate_keys() == 1
        with pytest.raises(ConfigurationError, match="FLUX_ENCRYPTION_KEYS"):
            state.rotate_keys(drop_old=True)
    with State.open(database_url, Vault([new])) as state:
        assert state.secrets.get("square:acme", purpose="test") == {"access_token": "a"}


def test_a_secret_that_no_key_decrypts_stops_the_rotation_with_nothing_changed(
    state: State, acme: str, key_file: Path
) -> None:
    state.secrets.put(acme, {"access_token": "a"})
    state.connections.add(Connection("square:lost", "acme"), {"access_token": "b"})
    foreign, _ = Vault([generate_key()]).encrypt("b")
    with state.database.session() as session:
        session.execute(
            text("UPDATE credentials SET ciphertext = :c, key_id = 'foreign' WHERE connection_key = 'square:lost'"),
            {"c": foreign},
        )
    with pytest.raises(DecryptionError, match="square:lost"):
        state.rotate_keys(drop_old=True)
    # The old key is still there, so everything else reads as before.
    assert len(key_file.read_text().splitlines()) == 2
    assert state.secrets.get(acme, purpose="test") == {"access_token": "a"}
