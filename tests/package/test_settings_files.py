"""Commands whose settings are keys: what is said of missing and mistyped ones, and where all of them are listed."""

import re

import pytest
from omegaconf import OmegaConf
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.cot.run import CotConfig
from omniq_verl.generation.config import read_config


def invoke(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "400", "TERM": "dumb"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cot", "run"], "data: no files are given. Fix: data=["),
        (["cot", "run", "data=[FILE]"], "engine.model: no model is given. Fix: set engine.model=FOLDER"),
        (["cot", "run", "pathz=3"], "there is no key 'pathz'. Fix: use paths"),
        (["cot", "run", "engine.modle=x"], "there is no key 'engine.modle'. Fix: use engine.model"),
        (["cot", "run", "model=x"], "there is no key 'model'. Fix: use engine.model"),
        (["cot", "run", "workers=2"], "there is no key 'workers'. Fix: use run_options.workers"),
        (["cot", "run", "zzz=2"], "there is no key 'zzz'. Fix: use one of data, out, engine.model"),
        (["cot", "run", "paths=many"], "paths: Value 'many' of type 'str' could not be converted to Integer"),
        (["cot", "run", "data=x"], "Fix: write a list, data=[VALUE,...]"),
        (["ract", "align"], "no domains are given. Fix: set domains.NAME.model=FOLDER"),
        (["ract", "align", "domain.koniq.model=x"], "there is no key 'domain'. Fix: use domains"),
    ],
)
def test_advice_is_in_keys_and_in_one_line(tmp_path, words, said):
    from generation_builders import write_rows

    file = write_rows(tmp_path / "train.parquet", [1, 2, 3])
    code, text = invoke(*(word.replace("FILE", str(file)) for word in words), *(["out=OUT"] if "cot" in words else []))
    assert code == 1 and said in text and len(text.strip().splitlines()) == 1
    assert not re.search(r"(?<!\w)--(data|model)", text)


def test_a_value_that_is_no_yaml_is_rejected_whatever_it_says():
    with pytest.raises(ValueError, match="settings: while parsing"):
        read_config(CotConfig, None, ["data=[ListConfig"])


@pytest.mark.parametrize("group", ["cot", "ract"])
def test_all_keys_are_printed_as_a_file_that_can_be_read(tmp_path, group):
    code, text = invoke(group, "keys")
    assert code == 0 and {"out", "engine", "run_options", "seed"} <= OmegaConf.create(text).keys()
    if group == "cot":
        (tmp_path / "cot.yaml").write_text(text)
        assert read_config(CotConfig, tmp_path / "cot.yaml", []) == CotConfig()


def test_keys_that_the_help_names_are_there():
    shown = re.search(r"Most used keys: (.*?)\. The", " ".join(invoke("cot", "run", "--help")[1].split()))[1]
    found = shown.split(", ")
    keys = OmegaConf.structured(CotConfig)
    assert len(found) > 8
    for name in found:
        assert OmegaConf.select(keys, name, default="missing") != "missing", name
