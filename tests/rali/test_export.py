"""A RALI as ONNX scores as the original does."""

import json

import numpy as np
import pytest
from rali_builders import picture, save_tiny_rali, tiny_encoder_folder
from typer.testing import CliRunner

from omniq_verl.rali import RaliScorer
from omniq_verl.rali.cli import app
from omniq_verl.rali.export import NEEDED, export_onnx
from omniq_verl.rali.preprocessing import Preprocessing


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_exported_model_agrees_on_batches_of_any_size(tmp_path, kind):
    for package in NEEDED:
        pytest.importorskip(package)
    import onnxruntime

    folder = save_tiny_rali(tmp_path / "rali", tiny_encoder_folder(tmp_path / kind, kind))
    assert export_onnx(folder, tmp_path / "rali.onnx") < 1e-4
    assert not list(tmp_path.glob("*.data")), "one file"
    session = onnxruntime.InferenceSession(tmp_path / "rali.onnx", providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    settings = json.loads(told["preprocessing"])
    preprocess = Preprocessing(**{**settings, "mean": tuple(settings["mean"]), "std": tuple(settings["std"])})
    data = [picture(n) for n in range(7)]
    eager = [one.score for one in RaliScorer(folder, "cpu").score(data)]
    pixels = np.stack([preprocess(one) for one in data])
    for size in (1, 4, 7):
        (scores,) = session.run(["scores"], {"pixels": pixels[:size]})
        assert scores.tolist() == pytest.approx(eager[:size], abs=1e-4)
    assert json.loads(told["scale"]) == {"low": 1.0, "high": 5.0} and json.loads(told["task"]) == "technical"


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("omniq_verl.rali.export.NEEDED", ("no_such_package",))
    words = ["export", "--model", str(tmp_path), "--out", str(tmp_path / "x.onnx")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1 and "needs no_such_package" in result.output and "omniq-verl[onnx]" in result.output


def test_another_ending_is_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr("omniq_verl.rali.export.NEEDED", ())
    with pytest.raises(ValueError, match=r"must end in \.onnx"):
        export_onnx(tmp_path, tmp_path / "x.bin")
