"""Check a configuration of verl's SFT trainer and the files it names."""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omniq_verl.doctor.data_files import FileReport, check_table, length_settings
from omniq_verl.doctor.file_report import each_once
from omniq_verl.doctor.loggers import check_loggers
from omniq_verl.doctor.model_checks import inspect_model
from omniq_verl.doctor.notes import same_rows
from omniq_verl.doctor.numbers import SFT_NUMBERS, check_learning_rate, check_numbers
from omniq_verl.doctor.paths import home_problems, paths_of
from omniq_verl.doctor.problem import Problem
from omniq_verl.doctor.prompt_length import Messages, PromptLength, load_processor, processor_problem
from omniq_verl.doctor.report import Report
from omniq_verl.doctor.resume import SFT, check_resume
from omniq_verl.doctor.rows import Fault, check_length, check_turns, collected, image_size, prompt_length
from omniq_verl.doctor.space import check_folder
from omniq_verl.doctor.unread.check import check_unread
from omniq_verl.rewards.parsing import Status, answer_of

COLUMNS = ("messages", "images")
_REQUIRED = ("data.train_files", "model.path", "trainer.default_local_dir")
_WRITE_ANEW = "write the file with omniq cot or omniq data"


def is_sft(config: DictConfig) -> bool:
    """Return whether this is a configuration of verl's SFT trainer."""
    return "actor_rollout_ref" not in config


def check_sft_config(config: DictConfig, overrides: Sequence[str] = ()) -> Report:
    """Check a configuration of ``verl.trainer.sft_trainer`` and every file it names.

    Args:
        config: the composed configuration, with or without the ``hydra`` node.
        overrides: overrides from the command line; not needed if there is a ``hydra`` node.
    """
    forgotten = [key for key in _REQUIRED if OmegaConf.select(config, key) is None]
    if forgotten:
        fix = "pass it on the command line: {}=VALUE"
        return Report([Problem(f"configuration key {key}", "it has no value", fix.format(key)) for key in forgotten])
    if problems := check_numbers(config, SFT_NUMBERS):
        return Report(problems)
    model = inspect_model(config.model.path, "model.path", bool(config.model.trust_remote_code))
    lengths, unreadable = (None, []) if model.problems else _lengths(config)
    train, val = (
        [_check_file(path, lengths, config.data) for path in paths_of(config.data.get(key))]
        for key in ("train_files", "val_files")
    )
    files = each_once([*train, *val])
    rows, most = sum(file.rows for file in train), config.data.get("train_max_samples", -1)
    rows = min(rows, most) if most > 0 else rows
    resume = check_resume(config, SFT, rows)
    unread, unread_notes = check_unread(config, overrides)
    found = [problem for file in files for problem in file.problems]
    return Report(
        [
            *model.problems,
            *unreadable,
            *check_learning_rate(config, "optim.lr"),
            *unread,
            *found,
            *_check_steps(config, rows),
            *check_folder(config.trainer.default_local_dir),
            *home_problems(config, ("model.tokenizer_path", "model.hf_config_path", "model.lora_adapter_path")),
            *check_loggers(config),
            *resume.problems,
        ],
        files=len(files),
        rows=sum(file.rows for file in files),
        bad_rows=sum(file.bad_rows for file in files),
        allowed_share=config.data.get("max_rejected_share", 0.0),
        longest_prompt=max((file.longest_prompt for file in files), default=0),
        notes=[*unread_notes, *same_rows(train, val), *resume.notes],
    )


def _lengths(config: DictConfig) -> tuple[PromptLength | None, list[Problem]]:
    try:
        processor = load_processor(config.model)
    except Exception as error:  # Hugging Face's loaders raise many kinds of errors, even a bare Exception
        return None, [processor_problem("model.path", config.model.path, error)]
    return PromptLength(processor, {"add_generation_prompt": False}), []


def _check_file(path: str, lengths: PromptLength | None, data: DictConfig) -> FileReport:
    counted, most = length_settings(lengths), data.max_length
    named = {"messages": data.get("messages_key", "messages"), "images": data.get("image_key", "images")}
    settings = None if counted is None else f"conversations, {most=}, {counted}"
    return check_table(path, COLUMNS, lambda record: check_sft_row(record, lengths, most), settings, named)


def check_sft_row(
    record: dict[str, Any], lengths: PromptLength | None, max_length: int
) -> tuple[list[Fault], int | None]:
    """Find all faults of a row, and count its tokens including the answer (None if they could not be counted).

    Args:
        record: the row as it is stored in the parquet file.
        lengths: counts tokens; None: do not check lengths.
        max_length: largest number of tokens a row may have.
    """
    faults: list[Fault] = []
    tokens = None
    with collected(faults):
        turns = _turns(record)
        sizes = tuple(image_size(image) for image in record["images"] or [])
        if lengths is not None:
            length = prompt_length(turns, sizes, lengths)
            tokens = length.total
            check_length(length, max_length, "data.max_length", "row")
    return faults, tokens


def _turns(record: dict[str, Any]) -> Messages:
    turns = check_turns(record["messages"], record["images"], "conversation")
    role, answer = turns[-1]
    if role != "assistant" or not answer.strip():
        raise Fault("answer", "its last turn is not the answer of an assistant; there is nothing to learn", _WRITE_ANEW)
    status, _ = answer_of(answer)
    if "<answer>" in answer and status is not Status.OK:
        raise Fault("answer", f"its answer could not be parsed by any reward ({status.value})", _WRITE_ANEW)
    return turns


def _check_steps(config: DictConfig, rows: int) -> list[Problem]:
    batch = config.data.train_batch_size
    if not 0 < rows < batch:
        return []
    what = f"there are only {rows} rows; verl drops the last incomplete batch, so there would be no step"
    return [Problem(f"data.train_batch_size={batch}", what, f"lower it to at most {rows}, or add rows")]
