"""verl's datasets without the rows that cannot be trained on (``data.custom_cls`` of the recipes).

Every row is checked again when the trainer reads it, because the preflight may be switched off and files may have
changed since. Bad rows are left out, counted and named. Too many of them are an error.
"""

from collections.abc import Iterator
from typing import Any

import datasets
import pyarrow as pa
from omegaconf import DictConfig
from transformers import PreTrainedTokenizer, ProcessorMixin
from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset
from verl.utils.dataset.rl_dataset import RLHFDataset

from omniq_verl.doctor.prompt_length import PromptLength
from omniq_verl.doctor.rows import Fault, check_row
from omniq_verl.doctor.sft import check_sft_row
from omniq_verl.trainer.rejected_rows import Rejected, reject, report

_ROWS_AT_ONCE = 64
_ANY_LENGTH = 2**31


class CheckedDataset(RLHFDataset):
    """verl's dataset of prompts; ``rejected`` holds the rows that are left out."""

    rejected: tuple[Rejected, ...] = ()

    def maybe_filter_out_long_prompts(self, dataframe: datasets.Dataset) -> datasets.Dataset:
        """Leave out rows that cannot be trained on; verl calls this after reading the files.

        Raises:
            TooManyRejected: there are more such rows than ``data.max_rejected_share`` allows.
        """
        self.rejected = tuple(reject(self._records(dataframe), self._check()))
        files = [str(file) for file in self.original_data_files]
        report(self.rejected, len(dataframe), files, self.config.get("max_rejected_share", 0.0))
        if self.rejected:
            dataframe = dataframe.select(_others(self.rejected, len(dataframe)))
        return super().maybe_filter_out_long_prompts(dataframe)

    def _check(self) -> Any:
        lengths = _lengths(self.processor, self.apply_chat_template_kwargs, self.mm_processor_kwargs)
        # If configured to, verl itself drops prompts that are too long, and prints their number.
        most = _ANY_LENGTH if self.filter_overlong_prompts else self.max_prompt_length
        labels = self.config.get("check_labels", True)

        def check(record: dict[str, Any]) -> list[Fault]:
            return check_row(record, lengths, most, labels)[0]

        return check

    def _records(self, dataframe: datasets.Dataset) -> Iterator[dict[str, Any]]:
        columns = ("data_source", "reward_model", "extra_info")
        # As Arrow, so that an image is read as bytes whatever the file's metadata says.
        for batch in dataframe.with_format("arrow").iter(_ROWS_AT_ONCE):
            for row in batch.to_pylist():  # pyright: ignore[reportAttributeAccessIssue]  a pyarrow table
                yield {
                    **{name: row.get(name) for name in columns},
                    "prompt": row.get(self.prompt_key),
                    "images": row.get(self.image_key),
                }


class CheckedSFTDataset(MultiTurnSFTDataset):
    """verl's dataset of conversations; ``rejected`` holds the rows that are left out."""

    rejected: tuple[Rejected, ...] = ()

    def __init__(
        self,
        parquet_files: str | list[str],
        tokenizer: PreTrainedTokenizer,
        config: DictConfig,
        processor: ProcessorMixin | None = None,
        max_samples: int = -1,
    ):
        self._share = config.get("max_rejected_share", 0.0)
        super().__init__(parquet_files, tokenizer, config, processor=processor, max_samples=max_samples)

    def _read_files_and_process(self) -> None:
        super()._read_files_and_process()
        rows = len(self.dataframe)
        self.rejected = tuple(reject(self._records(), self._check()))
        report(self.rejected, rows, list(map(str, self.parquet_files)), self._share)
        if self.rejected:
            self._leave_out(_others(self.rejected, rows))

    def _check(self) -> Any:
        lengths = _lengths(self.processor, {"add_generation_prompt": False}, None)

        def check(record: dict[str, Any]) -> list[Fault]:
            return check_sft_row(record, lengths, self.max_length)[0]

        return check

    def _records(self) -> Iterator[dict[str, Any]]:
        for first in range(0, len(self.dataframe), _ROWS_AT_ONCE):
            chunk = self.dataframe.iloc[first : first + _ROWS_AT_ONCE]
            for row in pa.Table.from_pandas(chunk, preserve_index=False).to_pylist():
                yield {**row, "messages": row.get(self.messages_key), "images": row.get(self.image_key)}

    def _leave_out(self, good: list[int]) -> None:
        self.dataframe = self.dataframe.iloc[good]
        self.messages = [self.messages[i] for i in good]
        for name in ("tools", "enable_thinking"):
            if (values := getattr(self, name)) is not None:
                setattr(self, name, [values[i] for i in good])


def _lengths(processor: Any, template: Any, processing: Any) -> PromptLength | None:
    if not hasattr(processor, "image_processor"):
        return None
    return PromptLength(processor, dict(template or {}), dict(processing or {}))


def _others(rejected: tuple[Rejected, ...], rows: int) -> list[int]:
    bad = {one.index for one in rejected}
    return [i for i in range(rows) if i not in bad]
