from __future__ import annotations

import base64
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from flux_pipelines.domain.errors import DecryptionError
from flux_pipelines.state import State, Vault, generate_key
from flux_pipelines_tests.state import workers
from flux_pipelines_tests.state.processes import together


def secret(state: State, name: str = "pseudonyms") -> bytes:
    return state.installation.secret(name, purpose="test")


def test_processes_that_race_for_a_secret_agree_on_one(database_url: str, key_file: Path, vault: Vault) -> None:
    found = together(6, workers.installation_secret, database_url, key_file)
    assert len(set(found)) == 1, found
    assert len(found[0]) == 32
    with State.open(database_url, vault) as state:
        assert secret(state) == found[0]
        assert secret(state, "another") != found[0]


def test_a_secret_stays_what_it_is_when_keys_are_rotated(database_url: str, vault: Vault, key_file: Path) -> None:
    with State.open(database_url, vault) as state:
        made = secret(state)
        assert state.rotate_keys(drop_old=True) == 1
    assert len(key_file.read_text().split()) == 1
    with State.open(database_url, Vault.load(None, key_file, production=False)) as state:
        assert secret(state) == made


def test_a_secret_is_encrypted_read_once_and_never_made_anew(sqlite_url: str, vault: Vault) -> None:
    with State.open(sqlite_url, vault) as state:
        (made,) = {secret(state) for _ in range(3)}
        (use,) = state.secrets.uses("installation")
        assert (use.names, use.purpose) == (("pseudonyms",), "test")
    folder = Path(str(make_url(sqlite_url).database)).parent
    stored = b"".join(path.read_bytes() for path in folder.iterdir())
    assert made not in stored
    assert base64.b64encode(made) not in stored
    with State.open(sqlite_url, Vault([generate_key()])) as state, pytest.raises(DecryptionError, match="installation"):
        secret(state)


def test_the_record_of_erasures_outlives_everything(state: State) -> None:
    first = state.erasures.begin("square:a", "tests", "hmac:x", everything=False, customers=1, orders=2, texts=3)
    second = state.erasures.begin("square:b", "tests", "hmac:y", everything=True, customers=0, orders=0, texts=0)
    done = state.erasures.finish(first, partitions=4, records=5, quarantined=6, events=7)
    assert (done.partitions, done.records, done.quarantined, done.events) == (4, 5, 6, 7)
    newest, oldest = state.erasures.list()
    assert oldest == done
    assert (newest.id, newest.everything, newest.finished_at) == (second, True, None)
    state.purge()
    assert state.erasures.list("square:a") == [done]
