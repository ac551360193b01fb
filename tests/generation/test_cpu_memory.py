"""How much of a machine's memory vLLM is given."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omniq_verl.generation.cpu_memory import GIB, cpu_share, measured_memory, weight_bytes
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.vllm_adapter import naming_our_options


@given(st.floats(1, 2000), st.floats(0.05, 1.0), st.floats(0, 300))
def test_the_default_is_always_free_and_never_more_than_the_model_needs(total, share, weights):
    found = cpu_share(None, int(weights * GIB), total * GIB, share * total * GIB)
    assert 0 < found <= share
    if weights >= 1:
        assert found * total <= max(2 * weights + 6, 0.01 * total) + 1e-6


def test_a_tiny_model_takes_a_few_of_many_gib():
    assert cpu_share(None, GIB, 512 * GIB, 500 * GIB) == pytest.approx(8 / 512)
    assert cpu_share(None, 0, 100 * GIB, 50 * GIB) == 0.45  # of unknown size: what is free


def test_what_is_asked_for_is_given_or_named_with_what_fits():
    assert cpu_share(0.3, GIB, 24 * GIB, 20 * GIB) == 0.3
    with pytest.raises(
        ValueError, match=r"--memory 0.85 is 20.4 of 24.0 GiB, and only 18.0 .*Fix: --memory 0.67"
    ) as said:
        cpu_share(0.85, GIB, 24 * GIB, 18 * GIB)
    fits = float(re.search(r"Fix: --memory (\S+),", str(said.value))[1])
    assert cpu_share(fits, GIB, 24 * GIB, 18 * GIB) == fits


def test_of_several_numa_nodes_the_fullest_counts(tmp_path):
    for number, free in enumerate((900, 300)):
        (tmp_path / f"node{number}").mkdir()
        lines = (f"MemTotal: {1000 * 2**20} kB", f"MemFree: {free} kB", "Active(file): 10 kB", "Other: 7 kB")
        text = "".join(f"Node {number} {line}\n" for line in lines)
        (tmp_path / f"node{number}/meminfo").write_text(text)
    assert measured_memory(tmp_path) == (1000 * GIB, 310 * 1024)
    total, free = measured_memory(tmp_path / "missing")
    assert 0 < free <= total


def test_weights_are_counted(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"12345")
    assert (weight_bytes(str(tmp_path)), weight_bytes("owner/name")) == (5, 0)


@pytest.mark.parametrize(
    "said",
    [
        "Free memory on device cuda:0 (3 GiB) on startup is less than desired GPU memory utilization (0.85, 67 GiB).",
        "No available memory for the cache blocks. Try increasing `gpu_memory_utilization`.",
    ],
)
def test_advice_of_vllm_names_our_option(said):
    with pytest.raises(RuntimeError, match=r"m: .* Fix: another --memory"), naming_our_options(EngineSpec("m", "x:y")):
        raise ValueError(said)
    with pytest.raises(KeyError), naming_our_options(EngineSpec("m", "x:y")):
        raise KeyError("another error")
