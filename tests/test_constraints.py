"""What the constraint files pin, next year as today."""

from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER = Path(__file__).parents[1] / "constraints"


def pinned(extra: str) -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in (FOLDER / f"{extra}.txt").read_text().splitlines())
    pairs = (line.split("==") for line in lines if line)
    return {canonicalize_name(name.partition("[")[0]): version for name, version in pairs}


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_all_that_is_asked_for_is_pinned_to_a_version_that_will_do(extra):
    versions = pinned(extra)
    for asked in map(Requirement, requires("omniq-verl")):
        if asked.marker is None or asked.marker.evaluate({"extra": extra}):
            version = versions[canonicalize_name(asked.name)]
            assert asked.specifier.contains(version, prereleases=True), f"{asked} and {version}"


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_hydra_is_one_that_verl_can_start_with(extra):
    # verl names no version; its entry points give hydra.main a version_base, which came with 1.2.
    assert tuple(map(int, pinned(extra)["hydra-core"].split(".")[:2])) >= (1, 3)
