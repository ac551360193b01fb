"""Everything this package changes of others on the CPU: still needed, working, and absent elsewhere.

A test called "... still ..." fails when upstream no longer needs a patch: then remove the patch.
"""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from omniq_verl.cpu.patches import PATCHES

pytestmark = pytest.mark.slow  # the probe starts verl and vLLM in several processes
TABLE = Path(__file__).parents[2] / "docs/internals/cpu-patches.md"
ELSEWHERE = ("unset", "nvidia", "huawei", "amd")
"""Settings of VERL_PLATFORM that name no CPU."""

QUOTED = {
    "vllm_name": "version = get_version(",
    "gloo_backend": 'f"cpu:gloo,{get_device_name()}:{get_nccl_backend()}"',
    "torchvision_schemas": 'register_fake("torchvision::nms")',
    "torchaudio_absent": "import torchaudio",
    "weight_relayout": "dispatch_cpu_unquantized_gemm(layer, remove_weight=True)",
    "cpu_fsdp_offload": "CPUOffloadPolicy(pin_memory=True)",
}
"""What stands at the upstream lines that are named for a patch."""


def upstream_lines(named: str) -> list[str]:
    """The lines of installed packages that a text like ``verl/a.py:3 and :5, vllm/b.py:7`` names."""
    lines, path = [], None
    for name, number in re.findall(r"([\w/]+\.py)?:(\d+)", named):
        if name:
            package, _, rest = name.partition("/")
            path = Path(find_spec(package).origin).parent / rest
        lines.append(path.read_text().splitlines()[int(number) - 1].strip())
    return lines


def table_row(name: str) -> list[str]:
    (row,) = [line for line in TABLE.read_text().splitlines() if line.startswith(f"| `{name}` |")]
    return [cell.strip() for cell in row.strip("|").split(" | ")]


# The table


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_every_patch_says_what_it_changes_and_until_when(patch):
    assert all((patch.name, patch.upstream, patch.why, patch.removed_when))
    assert callable(patch.apply)


def test_patches_have_names_of_their_own():
    assert len({patch.name for patch in PATCHES}) == len(PATCHES)


@pytest.mark.parametrize("name", [patch.name for patch in PATCHES])
def test_every_patch_of_the_table_is_under_contract(name):
    assert name in QUOTED


@pytest.mark.parametrize("name", QUOTED)
def test_the_page_names_every_patch_its_reason_and_its_end(name):
    row = table_row(name)
    assert len(row) == 4 and all(row)


@pytest.mark.parametrize("name", QUOTED)
@pytest.mark.usefixtures("cpu_build")
def test_the_page_names_the_right_lines(name):
    lines = upstream_lines(table_row(name)[1])
    assert lines and all(QUOTED[name] in line for line in lines), lines


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
@pytest.mark.usefixtures("cpu_build")
def test_the_table_names_the_right_lines(patch):
    lines = upstream_lines(patch.upstream)
    assert lines and all(QUOTED[patch.name] in line for line in lines), lines


def test_the_probe_began_before_anything_of_verl_or_vllm_was_loaded(verl_facts):
    # torch itself calls the entry point of torch_companions.
    ours = ("import_hooks", "lazy_names", "cpu", "cpu.torch_companions")
    companions = {"omniq_verl", *(f"omniq_verl.{name}" for name in ours)}
    assert set(verl_facts["before"]["modules"]) <= companions


# vllm_name


@pytest.mark.usefixtures("cpu_build")
def test_verl_still_asks_for_a_distribution_the_cpu_build_of_vllm_is_not(verl_facts):
    facts = verl_facts["upstream"]
    assert facts["vllm_version"].startswith("PackageNotFoundError")
    assert facts["verl_looks_for_vllm"].startswith("ValueError: vllm version None not supported")


def test_on_the_cpu_platform_vllm_has_the_version_of_its_cpu_build(verl_facts):
    facts = verl_facts["cpu"]
    assert facts["vllm_version"] == facts["real_version"] + "+cpu"  # vLLM chooses its platform by that suffix


def test_other_distributions_are_still_missing_where_they_are_missing(verl_facts):
    assert verl_facts["cpu"]["other_version"].startswith("PackageNotFoundError")


# gloo_backend


@pytest.mark.parametrize("function", ["process_group", "process_group_ray"])
def test_verl_still_names_the_cpu_twice_and_torch_still_rejects_that(verl_facts, function):
    assert re.match("ValueError: Duplicate device type cpu", verl_facts["upstream"][function])


@pytest.mark.parametrize(
    ("function", "returned"),
    [("initialize_global_process_group_ray", None), ("initialize_global_process_group", [0, 0, 1])],
)
def test_on_the_cpu_platform_a_process_group_of_one_runs_on_gloo(verl_facts, function, returned):
    expected = {"backend": "cpu:gloo", "sum": [1.0, 1.0], "returned": returned}
    assert verl_facts["cpu"]["process_group"][function] == expected


# The packed engine


def test_verl_still_loops_over_single_tokens_without_flash_attention(verl_facts):
    # Why the packed engine computes log-probabilities itself.
    assert verl_facts["upstream"]["logprobs"]["calls"] == 7  # as many as there are tokens
    assert verl_facts["upstream"]["logprobs"]["error"] < 1e-12


def test_verl_still_looks_for_an_engine_of_the_vendor_first_and_has_none(verl_facts):
    assert verl_facts["upstream"]["packed"] == []
    assert verl_facts["nvidia"]["packed"] == [["cuda", "nvidia"]]
    assert verl_facts["nvidia"]["chosen"] == "PackedFSDPEngine"
    assert verl_facts["cpu"]["chosen"] == "CpuFSDPEngineWithLMHead"


# cpu_fsdp_offload and the engine


def test_verl_still_has_no_engine_for_the_cpu(verl_facts):
    assert "cpu" not in verl_facts["upstream"]["engines"]


def test_on_the_cpu_platform_there_is_an_engine_for_it(verl_facts):
    assert set(verl_facts["cpu"]["engines"]) == {*verl_facts["upstream"]["engines"], "cpu"}


@pytest.mark.usefixtures("cpu_build")
def test_verl_still_pins_the_memory_of_a_reference_model_which_still_needs_an_accelerator(verl_facts):
    assert "accelerator" in verl_facts["cpu"]["pinned"]
    assert verl_facts["cpu"]["forward_only"]["upstream"] == verl_facts["cpu"]["pinned"]


def test_the_engine_for_the_cpu_builds_a_reference_model_and_leaves_its_configuration_alone(verl_facts):
    assert verl_facts["cpu"]["forward_only"]["ours"] == {"equal": True, "config_kept": True}


# weight_relayout


@pytest.mark.usefixtures("cpu_build")
def test_vllm_still_removes_weights_after_loading_unless_it_is_told_not_to(verl_facts):
    assert verl_facts["upstream"]["skips_before"] is False
    # Rows of 0 .. 63, eight each, summed: 28 + 64 per row.
    output = [28.0 + 64.0 * row for row in range(8)]
    assert verl_facts["upstream"]["linear_before"] == {"replaceable": False, "output": output}


@pytest.mark.usefixtures("cpu_build")
def test_on_the_cpu_platform_a_loaded_weight_can_be_replaced_and_is_used(verl_facts):
    # Replaced by the identity, which passes the ones through.
    assert verl_facts["upstream"]["linear_after"] == {"replaceable": True, "output": [1.0] * 8}


# torchvision_schemas and torchaudio_absent


@pytest.mark.usefixtures("cpu_build")
def test_torchvision_still_cannot_be_imported_beside_a_cpu_build_of_torch(torch_facts):
    assert torch_facts["bare"]["torchvision"] == "RuntimeError: operator torchvision::nms does not exist"


@pytest.mark.usefixtures("cpu_build")
def test_torchaudio_still_raises_what_its_users_do_not_expect(torch_facts):
    assert torch_facts["bare"]["torchaudio"].startswith("OSError: Could not load this library")


@pytest.mark.usefixtures("cpu_build")
def test_with_the_companions_torchvision_can_be_imported_and_resizes(torch_facts):
    assert re.match(r"\d+\.\d+", torch_facts["adapted"]["torchvision"])
    assert torch_facts["adapted"]["resize"] == [3, 4, 4]


@pytest.mark.usefixtures("cpu_build")
def test_with_the_companions_torchaudio_is_not_there(torch_facts):
    assert torch_facts["adapted"]["torchaudio"].startswith("ModuleNotFoundError")


# The platform, and its absence


@pytest.mark.parametrize("process", ["cpu", "cpu_oddly_spelled"])
def test_the_cpu_platform_is_chosen_by_its_name(verl_facts, process):
    assert verl_facts[process]["device"] == "cpu"
    assert verl_facts[process]["process_group_from"] == ["omniq_verl.cpu.patches"] * 2


def test_the_cpu_platform_alone_does_not_load_vllm_or_the_engine(verl_facts):
    ours = {"omniq_verl.plugin", "omniq_verl.cpu.patches", "omniq_verl.cpu.platform_verl"}
    assert set(verl_facts["cpu"]["modules"]) - set(verl_facts["bare"]["modules"]) <= ours


@pytest.mark.parametrize("process", ELSEWHERE)
def test_elsewhere_no_patch_is_even_loaded(verl_facts, process):
    loaded = set(verl_facts[process]["modules"])
    assert "omniq_verl.plugin" in loaded
    assert not {name for name in loaded if name.startswith("omniq_verl.cpu.")} - {"omniq_verl.cpu.torch_companions"}


@pytest.mark.parametrize("process", ELSEWHERE)
def test_elsewhere_verl_and_its_view_of_vllm_are_as_without_this_package(verl_facts, process):
    facts, bare = verl_facts[process], verl_facts["bare"]
    assert "VllmNameFinder" not in facts["finders"]
    for fact in ("vllm_version", "process_group_from"):
        assert facts[fact] == bare[fact]


@pytest.mark.parametrize("process", ["unset", "nvidia"])
def test_elsewhere_there_is_no_engine_for_the_cpu_and_vllm_is_not_touched(verl_facts, process):
    assert verl_facts[process]["device"] == "cuda"
    assert verl_facts[process]["engines"] == verl_facts["upstream"]["engines"]
    # Besides, what recipes name by a variable, for verl's own devices.
    parts = [[device, f"omniq_{part}"] for device in ("cuda", "npu") for part in ("language", "vision")]
    assert verl_facts[process]["parts"] == parts and verl_facts["upstream"]["engines"] == ["cuda", "npu"]
    assert verl_facts[process]["vllm_modules"] == []  # keep_weights_replaceable was called
