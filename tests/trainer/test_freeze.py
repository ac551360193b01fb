"""Which parameters are trained, and which are not."""

import numpy as np
import pytest
from torch import nn

from omniq_verl.tasks import TECHNICAL
from omniq_verl.tiny.model import save_tiny_model
from omniq_verl.trainer.freeze import train_part


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> nn.Module:
    from transformers import AutoModelForImageTextToText

    folder = tmp_path_factory.mktemp("parts") / "model"
    save_tiny_model(folder, list(TECHNICAL.questions), [np.zeros((80, 80, 3), dtype=np.uint8)])
    return AutoModelForImageTextToText.from_pretrained(folder)


@pytest.mark.parametrize("part", ["vision", "language"])
def test_one_part_is_trained_and_the_other_is_not(model, part):
    trained = train_part(model, part)
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    visual = {name for name, _ in model.named_parameters() if ".visual." in name}
    everything = {name for name, _ in model.named_parameters()}
    assert names == (visual if part == "vision" else everything - visual)
    assert 0 < trained == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert any("merger" in name for name in visual) and any("embed_tokens" in name for name in everything - visual)


def test_what_has_no_such_part_is_rejected(model):
    with pytest.raises(ValueError, match="vision, language"):
        train_part(model, "audio")
    with pytest.raises(ValueError, match="Linear has no module named visual"):
        train_part(nn.Linear(2, 2), "vision")
