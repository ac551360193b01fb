"""verl's SFT dataset with a weight for each row: DeQA's soft labels (``omniq_verl.baselines.answers``).

verl's loss multiplies log-probabilities by the loss mask and divides by its sum, so that a mask of weights makes it the
weighted mean. A row without ``extra_info.weight`` has the weight 1.
"""

from typing import Any

import torch

from omniq_verl.trainer.checked_dataset_verl import CheckedSFTDataset


class WeightedSFTDataset(CheckedSFTDataset):
    """Rows whose loss mask holds their weight instead of ones."""

    def __getitem__(self, item: int) -> dict[str, Any]:
        found = super().__getitem__(item)
        info = self.dataframe.iloc[item].get("extra_info")
        weight = info.get("weight", 1.0) if isinstance(info, dict) else 1.0
        return {**found, "loss_mask": found["loss_mask"].to(torch.float32) * float(weight)}
