"""The examples' chains of stages, without running them."""

import importlib.util
from pathlib import Path

import pytest
from doctor_builders import composed
from omegaconf import OmegaConf

from omniq_verl.quickstart.stages import Settings, Stage

REPO = Path(__file__).parents[1]
EXAMPLES = {
    "omniquality_r.table4": lambda module, settings: module.build(settings),
    "omniquality_r.chain": lambda module, settings: module.build(settings, table6=True),
    "q_insight.tables": lambda module, settings: module.build(settings),
    "ract.tables": lambda module, settings: module.build(settings),
    "rewards.table": lambda module, settings: module.build(settings, list(module.RUNS)),
}


@pytest.fixture(params=list(EXAMPLES))
def stages(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Stage]:
    folder, name = request.param.split(".")
    monkeypatch.syspath_prepend(str(REPO / "examples" / folder))
    spec = importlib.util.spec_from_file_location(request.param, REPO / "examples" / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return EXAMPLES[request.param](module, Settings(REPO, tmp_path / "seed0"))


def test_every_stage_has_a_folder_of_its_own(stages):
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names) > 5


@pytest.mark.slow  # reads fifteen recipes
def test_training_stages_set_keys_that_their_recipes_have(stages):
    training = [stage for stage in stages if "--config-name" in stage.command]
    assert len(training) >= 3
    for stage in training:
        place = stage.command.index("--config-name")
        recipe = composed(stage.command[place + 1])
        for word in stage.command[place + 2 :]:
            key, _, value = word.partition("=")
            if "." not in key:  # another file for one that the recipe names
                assert (REPO / "recipes" / key / f"{value}.yaml").is_file()
                continue
            key = key.removeprefix("+")
            assert key.rpartition(".")[2] in OmegaConf.select(recipe, key.rpartition(".")[0]), (stage.name, word)


def test_what_a_stage_reads_of_the_run_an_earlier_one_writes(stages, tmp_path):
    root, written = tmp_path / "seed0", set()
    for stage in stages:
        mine = root / stage.name
        words = [
            part
            for word in stage.command
            for part in word.replace("[", ",").replace("]", ",").replace("=", ",").split(",")
        ]
        read = {Path(word).relative_to(root).parts[0] for word in words if word.startswith(f"{root}/")} - {mine.name}
        assert read <= written, (stage.name, read - written)
        written.add(stage.name)
