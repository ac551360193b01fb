"""Extra start-up time of verl because this package is installed.

    python benchmarks/start_up.py [--runs 5]

Each figure is the median over fresh processes. The settings alternate, so that other load affects all of them alike.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

PLUGIN = {"VERL_USE_EXTERNAL_PLUGINS": "omniq_verl"}
SETTINGS = {
    "python": ("pass", {}),
    "import omniq_verl": ("import omniq_verl", {}),
    "import verl": ("import verl", {"VERL_USE_EXTERNAL_PLUGINS": "none"}),
    "import verl, with plug-in": ("import verl", PLUGIN),
    "import verl, with plug-in, VERL_PLATFORM=cpu": ("import verl", {**PLUGIN, "VERL_PLATFORM": "cpu"}),
}


def seconds(code: str, settings: dict[str, str]) -> float:
    """Wall-clock time of a fresh process whose only verl variables are the given ones."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VERL_")}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env={**environment, **settings}, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure(runs: int) -> dict[str, float]:
    """Median seconds of every setting."""
    for code, settings in SETTINGS.values():
        seconds(code, settings)  # warm-up: compiles byte code and fills the page cache
    times: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for _ in range(runs):
        for name, (code, settings) in SETTINGS.items():
            times[name].append(seconds(code, settings))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="fresh processes per setting (default: 5)")
    medians = measure(parser.parse_args().runs)
    for name, median in medians.items():
        base = medians["import verl" if "verl, with" in name else "python"]
        print(f"{median:7.3f} s {median - base:+7.3f} s {median / base:6.2f} x   {name}")
    print("differences and ratios are relative to python, with the plug-in to import verl")


if __name__ == "__main__":
    main()
