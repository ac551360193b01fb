"""The versions in constraints/ satisfy everything that setup.py and verl ask for."""

import os
import subprocess
import sysconfig
from importlib.metadata import distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from surface.record import installed_set

FOLDER = Path(__file__).parents[2] / "constraints"
SHARED_EXTRAS = ("serve", "t2i", "onnx", "dev")
"""What the Makefile installs in addition to ``cpu`` or ``gpu``."""
CPU_EXTRAS = ("docs",)
"""What it installs with ``cpu`` alone: the documentation is built there."""

PYTHONS = ("3.11", "3.12")


def pinned(name: str) -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in (FOLDER / f"{name}.txt").read_text().splitlines())
    pairs = (line.split("==") for line in lines if line)
    return {canonicalize_name(name.partition("[")[0]): version for name, version in pairs}


def asked_for(distribution: str, extras: tuple[str, ...]) -> list[Requirement]:
    found = map(Requirement, requires(distribution))
    return [one for one in found if one.marker is None or any(one.marker.evaluate({"extra": e}) for e in extras)]


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_every_requirement_is_pinned_to_a_version_that_satisfies_it(name):
    versions = pinned(name)
    for asked in asked_for("omniq-verl", (name, *SHARED_EXTRAS, *(CPU_EXTRAS if name == "cpu" else ()))):
        version = versions[canonicalize_name(asked.name)]
        assert asked.specifier.contains(version, prereleases=True), f"{asked} and {version}"


def test_the_installed_packages_agree_with_the_pins_on_every_supported_python():
    pins, problems = pinned(installed_set()), []
    # Not sys.path: setuptools, once imported, adds the folder of its vendored packages to it.
    folders = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    installed = [(one.metadata, one.requires or ()) for one in distributions(path=folders)]
    for about, _ in installed:  # a pin names no local version: 2.13.0 is installed as 2.13.0+cpu
        name = canonicalize_name(about["Name"])
        if Version(about["Version"]).public == pins.get(name):
            pins[name] = about["Version"]
    for about, requirements in installed:
        for asked in map(Requirement, requirements):
            pin = pins.get(canonicalize_name(asked.name))
            if needed(asked) and not (pin and asked.specifier.contains(pin, prereleases=True)):
                problems.append(f"{about['Name']} asks for {asked}, the pin is {pin}")
        for python in PYTHONS:
            if not SpecifierSet(about["Requires-Python"] or "").contains(f"{python}.9"):
                problems.append(f"{about['Name']} does not support Python {python}")
    assert not problems


def needed(asked: Requirement) -> bool:
    worlds = [{"python_version": python, "python_full_version": f"{python}.9", "extra": ""} for python in PYTHONS]
    return asked.marker is None or any(asked.marker.evaluate(world) for world in worlds)


def test_the_gpu_set_is_the_one_verl_asks_for_without_flash_attn():
    versions = pinned("gpu")
    extras = ("verl-core", "vllm", "fsdp", "cupy-cu130", "flash-attn-cu130torch211")
    missing = set()
    for asked in asked_for("verl", extras):
        name = canonicalize_name(asked.name)
        if name not in versions:
            missing.add(name)
        else:
            assert asked.specifier.contains(versions[name], prereleases=True), f"{asked} and {versions[name]}"
    assert missing == {"flash-attn"}, "flash-attn has no wheel; everything else must be pinned"


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_hydra_is_recent_enough_for_verl(name):
    # verl asks for no version, but its entry points pass version_base to hydra.main, which came with 1.2.
    assert tuple(map(int, pinned(name)["hydra-core"].split(".")[:2])) >= (1, 3)


PIP = """#!/usr/bin/env bash
# Stands in for `python -m pip`: records its arguments and knows the versions in $FOUND and $FOUND_OFFLINE.
shift 2
echo "$*" >> "$CALLS"
case "$*" in
    *--no-index*) versions=$FOUND_OFFLINE ;;
    "index versions"*) versions=$FOUND ;;
    list*) echo "torch==$INSTALLED"; exit ;;
    *) exit ;;
esac
[ -n "$versions" ] && echo "Available versions: $versions"
"""


@pytest.mark.parametrize(
    ("installed", "found_offline", "found", "calls"),
    [
        ("2.13.0+cpu", "", "", ["list"]),
        ("", "2.13.0+cpu", "", ["list", "index versions torch --no-index"]),
        ("", "", "2.14.0, 2.13.0+cpu, 2.13.0", ["list", "index versions torch --no-index", "index versions torch"]),
        (
            "2.13.0",
            "",
            "2.13.0, 2.13.0+cpu.cxx11, 12.13.0+cpu",
            [
                "list",
                "index versions torch --no-index",
                "index versions torch",
                "install -q --no-deps --index-url INDEX torch==2.13.0+cpu",
            ],
        ),
    ],
    ids=["installed", "in a folder", "on the usual index", "nowhere"],
)
def test_the_cpu_build_of_torch_is_fetched_only_where_pip_does_not_find_it(
    tmp_path, installed, found_offline, found, calls
):
    pip, log = tmp_path / "python", tmp_path / "calls"
    pip.write_text(PIP)
    pip.chmod(0o755)
    world = {"INSTALLED": installed, "FOUND_OFFLINE": found_offline, "FOUND": found, "CALLS": str(log)}
    done = subprocess.run(
        ["bash", str(FOLDER / "cpu_torch.sh"), "2.13.0+cpu", "INDEX"],
        env={**os.environ, "PYTHON": str(pip), **world},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert [line.removesuffix(" --format=freeze") for line in log.read_text().splitlines()] == calls
    assert ("INDEX" in done.stdout) == (len(calls) == 4)
