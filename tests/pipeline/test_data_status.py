"""Data sets below a folder: recognised by their label files, their images counted, the rest named."""

import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.packaged import SCRIPTS
from omniq_verl.pipeline import data_status
from omniq_verl.pipeline.data_sets import BY_NAME, DATA_SETS
from omniq_verl.pipeline.data_status import MISSING, PARTLY, READY, print_data_status, survey


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"12345")


def make(
    data: Path, name: str, folder: str | None = None, images: int | None = None, labels: int | None = None
) -> Path:
    """Empty files of a data set; all of its labels and images unless told otherwise."""
    about, root = BY_NAME[name], data / (folder or name)
    for group in about.labels[:labels]:
        touch(root / "below" / group[0].upper())
    for number in range(about.images if images is None else images):
        touch(root / "images" / str(number % 10) / f"{number}.JPG")
    return root


def found(data: Path) -> dict:
    return {one.about.name: one for one in survey(data)}


def test_every_set_has_a_script_a_page_and_a_licence():
    assert len(DATA_SETS) == len(BY_NAME) == 16
    for one in DATA_SETS:
        assert (SCRIPTS / f"{one.name}.py").is_file() and one.page.startswith("https://") and one.licence and one.layout


def test_the_label_files_are_those_the_scripts_look_for():
    for one in DATA_SETS:
        text = (SCRIPTS / f"{one.name}.py").read_text()
        for group in one.labels:
            for name in group:
                assert name in text or (name.startswith("A0001") and "A0001" in text), (one.name, name)


def test_a_set_is_found_under_any_name_and_counted(tmp_path):
    root = make(tmp_path, "csiq", "CSIQ from the owners")
    one = found(tmp_path)["csiq"]
    assert (one.state, one.folder, one.images, one.bytes) == (READY, root.resolve(), 866, 5 * 867)


def test_missing_images_and_labels_are_named(tmp_path):
    make(tmp_path, "csiq", images=800)
    make(tmp_path, "evalmi", images=0, labels=1)
    sets = found(tmp_path)
    assert (sets["csiq"].state, sets["csiq"].missing) == (PARTLY, ("66 of 866 images",))
    assert sets["evalmi"].missing == ("question.xlsx", "50,400 of 50,400 images")
    assert (sets["ava"].state, sets["ava"].folder) == (MISSING, None) and "AVA.txt" in sets["ava"].missing[0]


def test_names_that_many_folders_have_count_only_in_the_sets_own(tmp_path):
    touch(tmp_path / "my_ratings" / "data.csv")
    touch(tmp_path / "my_ratings" / "manifest.csv")
    assert found(tmp_path)["agiqa3k"].state == found(tmp_path)["t2i_compbench"].state == MISSING
    make(tmp_path, "agiqa3k", "AGIQA-3K")
    assert found(tmp_path)["agiqa3k"].state == READY


def test_links_to_folders_are_not_followed(tmp_path):
    make(tmp_path, "csiq", images=10)
    (tmp_path / "csiq" / "loop").symlink_to(tmp_path)
    assert found(tmp_path)["csiq"].images == 10


def test_without_a_folder_everything_is_missing_and_a_wrong_one_is_an_error(tmp_path):
    assert {one.state for one in survey(None)} == {MISSING}
    with pytest.raises(ValueError, match=r"no folder .* Fix: name the folder"):
        survey(tmp_path / "none")


def test_the_table_names_page_licence_and_layout():
    console = Console(width=400, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_data_status(survey(None), console)
    text = console.export_text()
    assert all(one.page in text and one.title in text and one.licence in text for one in DATA_SETS)
    assert "54 GB in six parts" in text and "0 of 16 data sets are ready" in text


def test_the_command_prints_the_table_and_writes_the_same_as_json(tmp_path):
    make(tmp_path / "data", "csiq")
    words = ["data", "status", "--data", str(tmp_path / "data"), "--json", str(tmp_path / "status.json")]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "300"})
    assert result.exit_code == 0 and "1 of 16 data sets are ready" in result.output
    (csiq,) = [one for one in json.loads((tmp_path / "status.json").read_text()) if one["name"] == "csiq"]
    assert csiq["state"] == "ready" and csiq["images"] == 866
    result = CliRunner().invoke(app, ["data", "status", "--data", str(tmp_path / "none")])
    assert result.exit_code == 1 and "Fix: name the folder" in str(result.exception) + result.output


def test_nearly_all_images_are_enough(tmp_path):
    make(tmp_path, "csiq", images=int(866 * data_status.NEARLY_ALL) + 1)
    assert found(tmp_path)["csiq"].state == READY
