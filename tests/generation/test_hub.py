"""Names of models that are no folders."""

import time

import pytest

from omniq_verl.generation.hub import check_hub_name
from omniq_verl.generation.spec import EngineSpec


@pytest.mark.parametrize("kind", ["vllm", "hf"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("runs/stage2/huggingface", "no such folder"),
        ("models/stage2", "no such folder"),
        ("nobody/nothing", "the cache has no model of this name"),
        ("nothing", "the cache has no model of this name"),
        ("no body", "neither a folder nor a name"),
        ("a--b", "neither a folder nor a name"),
    ],
)
def test_a_mistyped_path_or_name_is_one_line_at_once(tmp_path, monkeypatch, name, said, kind):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "models").mkdir()
    begun = time.monotonic()
    with pytest.raises(ValueError, match=said) as caught:
        EngineSpec(name, kind).check()
    assert time.monotonic() - begun < 5
    assert name in str(caught.value) and "Fix: " in str(caught.value) and "\n" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_said_in_seconds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.endpoint", "http://127.0.0.1:9", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    begun = time.monotonic()
    with pytest.raises(ValueError, match="nobody/nothing"):
        check_hub_name("nobody/nothing")
    assert time.monotonic() - begun < 30
