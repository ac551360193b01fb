"""Models that are closed give their engine's memory back."""

import pytest
from evaluation_builders import grey
from rich.console import Console

from omniq_verl import Scorer
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.scoring.comparison import Comparer
from omniq_verl.scoring.score_table import score_files


@pytest.mark.parametrize("opened", [Scorer, Comparer])
def test_a_closed_model_has_closed_its_engine_and_says_so(opened, tmp_path):
    with opened(f"fine {tmp_path}", "generation_builders:Closable") as one:
        assert (tmp_path / "events").read_text().split() == ["open"]
    one.close()
    assert (tmp_path / "events").read_text().split() == ["open", "close"]
    with pytest.raises(RuntimeError, match=f"this {opened.__name__} has been closed. Fix: open another one"):
        one.score(grey(9)) if opened is Scorer else one.compare([(grey(9), grey(99))])


def test_a_table_of_scores_closes_its_model(tmp_path):
    (tmp_path / "a.png").write_bytes(grey(40))
    spec = EngineSpec(f"fine {tmp_path}", "generation_builders:Closable")
    for name in ("a", "b"):
        score_files(spec, [tmp_path / "a.png"], tmp_path / f"{name}.csv", Console(quiet=True), {}, 64, 0)
    assert (tmp_path / "events").read_text().split() == ["open", "close"] * 2
