"""verl's dataset without the rows that cannot be trained on.

Every row goes through the checks of the preflight once more, where the trainer reads it: the preflight may be switched
off, and files may have changed since. A bad row is left out, counted and named. Too many are an error.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
from verl.utils.dataset.rl_dataset import RLHFDataset

from omniq_verl.doctor.prompt_length import PromptLength
from omniq_verl.doctor.report import may_leave_out
from omniq_verl.doctor.rows import check_row
from omniq_verl.doctor.threads import map_in_order, usable_cores

FILE_NAME = "rejected_rows.jsonl"
"""Name of the file in the folder of the run; a line for each rejected row."""
_SHOWN = 20
_ROWS_AT_ONCE = 64
_MOST_THREADS = 16
_ANY_LENGTH = 2**31


@dataclass(frozen=True)
class Rejected:
    """A row that is left out."""

    index: int
    """Index among the rows of all files, from 0; with ``train_max_samples`` among those that were chosen."""
    row: str
    """``extra_info.id``, or "unknown"."""
    source: str
    reasons: tuple[str, ...]


class TooManyRejected(ValueError):
    """More rows were rejected than ``data.max_rejected_share`` allows."""


class CheckedDataset(RLHFDataset):
    """verl's dataset; ``rejected`` holds the rows that are left out (``data.custom_cls`` of the recipes)."""

    rejected: tuple[Rejected, ...] = ()

    def maybe_filter_out_long_prompts(self, dataframe: datasets.Dataset) -> datasets.Dataset:
        """Leave out rows that cannot be trained on; verl calls this when it has read the files.

        Raises:
            TooManyRejected: more rows than ``data.max_rejected_share`` allows.
        """
        self.rejected = tuple(self._rejections(dataframe))
        if self.rejected:
            self._report(len(dataframe))
            bad = {one.index for one in self.rejected}
            dataframe = dataframe.select([i for i in range(len(dataframe)) if i not in bad])
        return super().maybe_filter_out_long_prompts(dataframe)

    def _rejections(self, dataframe: datasets.Dataset) -> Iterator[Rejected]:
        lengths = None
        if hasattr(self.processor, "image_processor"):
            template, processing = dict(self.apply_chat_template_kwargs or {}), dict(self.mm_processor_kwargs or {})
            lengths = PromptLength(self.processor, template, processing)
        # verl drops prompts that are too long by itself, and says how many, where it is asked to.
        most = _ANY_LENGTH if self.filter_overlong_prompts else self.max_prompt_length
        labels = self.config.get("check_labels", True)

        def check(record: dict[str, Any]) -> tuple[str, ...]:
            try:
                faults, _ = check_row(record, lengths, most, labels)
            except MemoryError:
                raise
            except Exception as error:  # a row of another shape than any check expects
                return (f"the row cannot be read ({type(error).__name__}: {error})",)
            return tuple(fault.what for fault in faults)

        reasons = map_in_order(check, self._records(dataframe), usable_cores(_MOST_THREADS))
        for index, found in enumerate(reasons):
            if found:
                row = dataframe[index]
                info = row.get("extra_info") if isinstance(row.get("extra_info"), dict) else {}
                yield Rejected(index, str(info.get("id", "unknown")), str(row.get("data_source")), found)

    def _records(self, dataframe: datasets.Dataset) -> Iterator[dict[str, Any]]:
        columns = ("data_source", "reward_model", "extra_info")
        # As Arrow, so that an image is its bytes whatever the file's metadata say.
        for batch in dataframe.with_format("arrow").iter(_ROWS_AT_ONCE):
            for row in batch.to_pylist():
                yield {
                    **{name: row.get(name) for name in columns},
                    "prompt": row.get(self.prompt_key),
                    "images": row.get(self.image_key),
                }

    def _report(self, rows: int) -> None:
        share = self.config.get("max_rejected_share", 0.0)
        count = len(self.rejected)
        print(f"{count:,} of {rows:,} rows of {', '.join(map(str, self.data_files))} are rejected:", flush=True)
        for one in self.rejected[:_SHOWN]:
            print(f"  row {one.index} (id {one.row}): {'; '.join(one.reasons)}", flush=True)
        if not may_leave_out(count, rows, share):
            raise TooManyRejected(
                f"{count:,} of {rows:,} rows are rejected, more than data.max_rejected_share={share:g}. Fix: prepare"
                " the file again, or raise data.max_rejected_share"
            )


def save_rejected(train: Any, val: Any, folder: Path) -> None:
    """Write the rejected rows of both datasets into the folder of the run; no file if there are none."""
    found = [("train", one) for one in getattr(train, "rejected", ())]
    found += [("val", one) for one in getattr(val, "rejected", ())]
    path = folder / FILE_NAME
    if not found:
        path.unlink(missing_ok=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"split": split, **asdict(one)}) + "\n" for split, one in found]
    path.write_text("".join(lines), encoding="utf-8")
