"""`python -m benchmarks [NAME...]`: run benchmarks, print ratios and verdicts, exit 1 when a target is missed."""

from __future__ import annotations

import argparse
import os
import sys

from benchmarks.scenarios import SCENARIOS, Size


def main() -> int:
    default = Size()
    described = "\n".join(f"  {name:<9} {scenario.__doc__}" for name, scenario in SCENARIOS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"{__doc__}\n\n{described}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which ones; all of them without a name")
    parser.add_argument("--orders", type=int, default=default.orders, help="orders of a load (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=default.rounds, help="interleaved runs (default %(default)s)")
    parser.add_argument(
        "--days", type=int, default=default.days, help="business dates of `year` and `bulk` (default %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=default.seconds, help="how long `limiter` runs")
    parser.add_argument("--no-peers", action="store_true", help="leave dlt out of `load`")
    chosen = parser.parse_args()
    unknown = set(chosen.names) - SCENARIOS.keys()
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; known: {', '.join(SCENARIOS)}")
    size = Size(chosen.orders, chosen.rounds, chosen.days, chosen.seconds, not chosen.no_peers)
    missed = []
    for name in chosen.names or SCENARIOS:
        scenario = SCENARIOS[name]
        print(f"\n== {name}: {scenario.__doc__}  (load average {os.getloadavg()[0]:.1f})", flush=True)
        if not scenario(size):
            missed.append(name)
    if missed:
        print(f"\nTargets missed in: {', '.join(missed)}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
