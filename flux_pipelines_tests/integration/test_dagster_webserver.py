"""The Dagster webserver that `flux up` starts, as a process: whom it answers, and what reaches its mutations."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from flux_pipelines.cli.processes import answers
from flux_pipelines.settings import PROJECT_ROOT, settings
from flux_pipelines_tests.integration.conftest import Flux

KEPT = dg.AssetKey("kept")
WIPE = 'mutation { wipeAssets(assetPartitionRanges: [{assetKey: {path: ["kept"]}}]) { __typename } }'
VERSION = "{ version }"
PUBLIC = "https://dagster.example.com"
#: What browsers say of requests that a page of another origin makes; `same-site` is another port of this machine.
OF_OTHERS = (
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:1"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
)
LINK = {
    "sec-fetch-site": "cross-site",
    "sec-fetch-mode": "navigate",
    "sec-fetch-dest": "document",
    "accept": "text/html",
}


class Webserver:
    """A running webserver over an instance that has one asset."""

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.host = f"127.0.0.1:{port}"
        self.url = f"http://{self.host}"
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def kept(self) -> bool:
        """Tell whether the asset's history is still there."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            return instance.get_latest_materialization_event(KEPT) is not None


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webserver]:
    folder = tmp_path_factory.mktemp("web")
    flux = Flux(folder / "home")
    home = flux.home / "dagster"
    home.mkdir(parents=True)
    shutil.copyfile(PROJECT_ROOT / "dagster.yaml", home / "dagster.yaml")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLUX_HOME", str(flux.home))
        settings.cache_clear()
        with dg.DagsterInstance.from_config(str(home)) as instance:
            instance.report_runless_asset_event(dg.AssetMaterialization(KEPT))
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "flux_pipelines.defs.internals.webserver", "-p", str(port), "--empty-workspace"],
                env={**flux.environment, "DAGSTER_HOME": str(home), "FLUX_DAGSTER_URL": PUBLIC},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            deadline = time.monotonic() + 120
            while not answers(port):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield Webserver(home, port)
        finally:
            process.terminate()
            process.wait(30)
    settings.cache_clear()


def test_a_program_of_this_machine_and_the_ui_itself_are_answered(web: Webserver) -> None:
    for headers in (
        {},
        {"origin": web.url, "sec-fetch-site": "same-origin"},
        {"host": "localhost:8000", "origin": "http://localhost:8000", "sec-fetch-site": "same-origin"},  # a tunnel
        {"host": "dagster.example.com", "origin": PUBLIC, "sec-fetch-site": "same-origin"},
        {"origin": PUBLIC, "sec-fetch-site": "same-origin"},  # a proxy that puts its own name for `Host`
    ):
        answer = web.client.post("/graphql", json={"query": VERSION}, headers=headers)
        assert (answer.status_code, answer.json()["data"].keys()) == (200, {"version"}), headers
    page = web.client.get("/assets", headers={"accept": "text/html", "sec-fetch-site": "none"})
    assert page.status_code == 200
    assert page.headers["x-frame-options"] == "SAMEORIGIN"
    policies = page.headers.get_list("content-security-policy")
    assert len(policies) == 2
    assert "img-src 'self' data: blob:" in policies[1]


def test_no_mutation_is_sent_by_get(web: Webserver) -> None:
    path = f"/graphql?query={quote(WIPE)}"
    image = {
        "sec-fetch-site": "same-origin",
        "sec-fetch-mode": "no-cors",
        "sec-fetch-dest": "image",
        "accept": "image/*",
    }
    for headers in ({}, image, {"accept": "*/*"}):
        assert web.client.get(path, headers=headers).status_code == 405, headers
        assert web.client.request("HEAD", path, headers=headers).status_code == 405
    shown = web.client.get(path, headers={"accept": "text/html"})  # the page on which questions are written
    assert (shown.status_code, shown.headers["content-type"].partition(";")[0]) == (200, "text/html")
    assert web.kept()


def test_no_mutation_is_sent_as_a_form_can_send_it(web: Webserver) -> None:
    body = json.dumps({"query": WIPE})
    for kind in (
        "text/plain",
        "text/plain; application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=application/json",
        "application/graphql",
        "",
    ):
        for path in (f"/graphql?query={quote(WIPE)}", "/graphql", "/report_asset_materialization/forged"):
            answer = web.client.post(path, content=body, headers={"content-type": kind})
            assert answer.status_code == 415, (kind, path, answer.text)
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS"):
        assert web.client.request(method, "/graphql").status_code == 405
    assert web.kept()


@pytest.mark.parametrize("headers", OF_OTHERS, ids=str)
def test_a_page_of_another_site_is_not_answered(web: Webserver, headers: dict[str, str]) -> None:
    for path in ("/graphql", "/assets", "/server_info", "/logs/x/y/z.out", "/download_debug/x", "/favicon.png"):
        answer = web.client.get(path, headers=headers)
        assert answer.status_code == 403, path
    for query in (WIPE, VERSION):
        assert web.client.post("/graphql", json={"query": query}, headers=headers).status_code == 403
    assert web.client.post("/report_asset_materialization/forged", json={}, headers=headers).status_code == 403
    assert web.kept()


def test_a_link_of_another_site_leads_to_pages_and_to_nothing_with_data(web: Webserver) -> None:
    for path in ("/", "/assets/kept", "/runs", "/graphql/"):
        answer = web.client.get(path, headers=LINK)
        assert answer.status_code == 200, path
        assert answer.text.lstrip().lower().startswith("<!doctype html>")
    for path in (
        "/graphql",
        "/server_info",
        "/dagit_info",
        "/logs/x/y/z.out",
        "/download_debug/x",
        "/notebook?path=x.ipynb",
    ):
        assert web.client.get(path, headers=LINK).status_code == 403, path
    assert (
        web.client.post(
            "/graphql", json={"query": VERSION}, headers={**LINK, "origin": "https://evil.example"}
        ).status_code
        == 403
    )


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example:3000",
        "localhost.evil.example",
        "[::2]",
        "[",
        "",
        "dagster.example.com:1",
    ],
)
def test_no_other_name_for_this_machine_is_answered(web: Webserver, host: str) -> None:
    headers = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"}
    for path in ("/", "/graphql", "/assets"):
        assert web.client.get(path, headers={**headers, "accept": "text/html"}).status_code == 421
    assert web.client.post("/graphql", json={"query": WIPE}, headers=headers).status_code == 421
    assert web.kept()


def test_a_web_socket_of_another_site_or_under_another_name_is_not_opened(web: Webserver) -> None:
    def opened(address: str = web.url, **headers: str) -> Any:
        port = int(web.host.rpartition(":")[2])
        raw = socket.create_connection(("127.0.0.1", port))
        return connect(
            address.replace("http", "ws") + "/graphql",
            sock=raw,
            subprotocols=["graphql-ws"],
            additional_headers=headers,
        )

    for refused in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://evil.example", "address": "http://evil.example"},
    ):
        with pytest.raises(InvalidStatus) as told:
            opened(**refused)
        assert told.value.response.status_code == 403, refused

    with opened(Origin=web.url) as own:
        own.send(json.dumps({"type": "connection_init"}))
        assert json.loads(own.recv(10))["type"] == "connection_ack"
        own.send(json.dumps({"id": "1", "type": "start", "payload": {"query": WIPE}}))
        assert json.loads(own.recv(10))["type"] == "error"
    assert web.kept()


def test_the_mutation_of_these_tests_is_one(web: Webserver) -> None:
    """It comes last: sent as the UI sends it, it does what none of the others could make it do."""
    assert web.kept()
    answer = web.client.post("/graphql", json={"query": WIPE})
    assert answer.json() == {"data": {"wipeAssets": {"__typename": "AssetWipeSuccess"}}}
    assert not web.kept()
