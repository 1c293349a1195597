from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from flux_pipelines.lake import DeltaLake, ObjectStore, RawStore, object_store


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 server on loopback, with one bucket, that boto3 and deltalake find through boto3's own settings."""
    # Not a thread of this process: deltalake holds the interpreter while it waits for an answer.
    # And "only if it is not there" is one step at S3, which two writers of a table rely on; in moto it is two.
    code = (
        "import logging, threading; from moto.s3.responses import S3Response; from moto.server import ThreadedMotoServer\n"
        "put, one = S3Response._key_response_put, threading.Lock()\n"
        "def put_alone(*args):\n"
        "    with one: return put(*args)\n"
        "S3Response._key_response_put = put_alone\n"
        "logging.getLogger('werkzeug').setLevel('ERROR')\n"
        "server = ThreadedMotoServer('127.0.0.1', 0, verbose=False); server.start()\n"
        "print(server.get_host_and_port()[1], flush=True); threading.Event().wait()"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing-secret",
            "AWS_DEFAULT_REGION": "eu-west-1",
        }.items():
            patch.setenv(name, value)
        import boto3

        boto3.client("s3").create_bucket(
            Bucket="flux-lake", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )
        yield endpoint
    server.kill()
    server.communicate()


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh root on each kind of storage."""
    if request.param == "local":
        return str(tmp_path / "lake")
    request.getfixturevalue("s3_endpoint")
    return f"s3://flux-lake/{uuid.uuid4().hex}"


@pytest.fixture
def store(root: str) -> ObjectStore:
    return object_store(root)


@pytest.fixture
def raw(store: ObjectStore) -> RawStore:
    return RawStore(store)


@pytest.fixture
def lake(store: ObjectStore) -> DeltaLake:
    return DeltaLake(store)


@pytest.fixture
def local(tmp_path: Path) -> DeltaLake:
    return DeltaLake(object_store(tmp_path / "lake"))
