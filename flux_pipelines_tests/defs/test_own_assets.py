"""What `docs/own-assets.md` says works: an analyst's file is loaded, and its assets read the lake and ask the provider."""

from __future__ import annotations

import re
from pathlib import Path

import dagster as dg
import yaml

from flux_pipelines.cli.serve import _workspace
from flux_pipelines.settings import PROJECT_ROOT
from flux_pipelines_tests.defs.conftest import END_DAY, Home

PAGE = (PROJECT_ROOT / "docs/own-assets.md").read_text()


def code(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def test_assets_of_ones_own_read_the_lake_and_ask_the_provider(home: Home) -> None:
    (key,) = home.connect("harbor")
    assert home.sync((key, END_DAY), (key, END_DAY)).success
    refreshed = home.run("refresh_core", str(END_DAY), str(END_DAY))
    assert refreshed.success
    module: dict[str, dg.Definitions] = {}
    exec(compile(code("python"), "own_assets.py", "exec", dont_inherit=True), module)
    job = module["defs"].resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=home.instance)
    (best,) = result.output_for_node("best_days").to_dict("records")
    ((currency, day, net),) = home.ask("select currency, business_date, sum(net) from daily_sales group by all")
    assert (best["currency"], best["business_date"].date(), best["net"]) == (currency, day, float(net))
    stores = home.sandbox.world.merchant("harbor").locations
    assert sorted(result.output_for_node("store_names")) == sorted(store.name for store in stores)


def test_code_locations_of_ones_own_are_served_with_ours(tmp_path: Path) -> None:
    own = tmp_path / "project" / "workspace.yaml"
    own.parent.mkdir()
    own.write_text((PROJECT_ROOT / "workspace.yaml").read_text() + code("yaml"))
    ours, theirs = (
        dict(*entry.values()) for entry in yaml.safe_load(_workspace(tmp_path, own).read_text())["load_from"]
    )
    assert (ours["module_name"], ours["working_directory"]) == ("flux_pipelines.definitions", str(tmp_path))
    assert theirs["relative_path"] == str(own.parent / "own_assets.py")
