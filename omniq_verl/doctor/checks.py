"""All checks of a composed configuration."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omniq_verl.doctor.data_files import FileReport, check_file, mean_image_tokens
from omniq_verl.doctor.file_report import each_once
from omniq_verl.doctor.free_space import FreeSpace, measure_free_space
from omniq_verl.doctor.loggers import check_loggers
from omniq_verl.doctor.model_checks import inspect_model
from omniq_verl.doctor.notes import dropped_rows, same_rows, unsaved_validations
from omniq_verl.doctor.numbers import GRPO_NUMBERS, check_group, check_learning_rate, check_numbers
from omniq_verl.doctor.paths import has_pattern, home_problems, paths_of
from omniq_verl.doctor.problem import Problem
from omniq_verl.doctor.prompt_length import PromptLength, load_processor, processor_problem
from omniq_verl.doctor.report import Report
from omniq_verl.doctor.resume import GRPO, check_resume
from omniq_verl.doctor.settings import OUR_REWARDS, REWARD, check_settings
from omniq_verl.doctor.sft import check_sft_config, is_sft
from omniq_verl.doctor.space import check_folder, check_space, describe_space
from omniq_verl.doctor.unread.check import check_unread
from omniq_verl.trainer.best_checkpoint import OFF

_BEST = "trainer.v1.keep_best"
_STARTS_FROM = "actor_rollout_ref.model.path"
_OTHER_PATHS = (
    *(f"actor_rollout_ref.model.{key}" for key in ("tokenizer_path", "hf_config_path", "lora_adapter_path")),
    *("trainer.validation_data_dir", "trainer.rollout_data_dir"),
)
_REQUIRED = ("data.train_files", "data.val_files", _STARTS_FROM, "trainer.default_local_dir")


def check_config(config: DictConfig, free: FreeSpace | None = None, overrides: Sequence[str] = ()) -> Report:
    """Check a configuration of ``verl.trainer.main_ppo``, or of verl's SFT trainer, and every file it names.

    Args:
        config: the composed configuration, with or without the ``hydra`` node.
        free: free space of the machine; None: measure it.
        overrides: overrides from the command line; not needed if there is a ``hydra`` node.
    """
    if is_sft(config):
        return check_sft_config(config, overrides)
    problems = check_keys(config) or check_numbers(config, GRPO_NUMBERS)
    if problems:
        return Report(problems)  # the other checks need these keys
    actor = config.actor_rollout_ref.model
    model = inspect_model(actor.path, _STARTS_FROM, bool(actor.trust_remote_code))
    lengths, processor_problems = (None, []) if model.problems else prompt_lengths(config)
    train = _check_files(config.data.train_files, config, lengths)
    val = _check_files(config.data.val_files, config, lengths)
    free = free or measure_free_space(Path(config.trainer.default_local_dir))
    files = each_once([*train, *val])
    rows = sum(file.rows - file.dropped for file in train)
    resume = check_resume(config, GRPO, _used_rows(config, rows))
    unread, unread_notes = check_unread(config, overrides)
    image_tokens, longest = mean_image_tokens(train), max((file.longest_prompt for file in files), default=0)
    return Report(
        problems=[
            *model.problems,
            *processor_problems,
            *check_load_format(config),
            *check_settings(config),
            *check_group(config),
            *check_learning_rate(config, "actor_rollout_ref.actor.optim.lr"),
            *unread,
            *(problem for file in files for problem in file.problems),
            *check_dropped(train),
            *check_test_rows("data.train_files", train),
            *check_test_rows("data.val_files", val),
            *check_batch_size(config, rows),
            *check_sources(config, files),
            *check_folder(config.trainer.default_local_dir),
            *home_problems(config, _OTHER_PATHS),
            *check_loggers(config),
            *resume.problems,
            *check_space(config, model, free, image_tokens),
        ],
        files=len(files),
        rows=sum(file.rows for file in files),
        bad_rows=sum(file.bad_rows for file in files),
        allowed_share=config.data.get("max_rejected_share", 0.0),
        longest_prompt=longest,
        notes=[
            *unread_notes,
            *same_rows(train, val),
            *dropped_rows(files),
            *_unsaved(config),
            *resume.notes,
            *describe_space(config, model, free, image_tokens, longest),
        ],
    )


def check_test_rows(key: str, files: Sequence[FileReport]) -> list[Problem]:
    """Report test sets among files that are used for training or for choosing a checkpoint."""
    what = "are from the test split, and a result on that set would no longer be a test"
    fix = f"use files of another split in {key}; data_prep draws one (--val-fraction, --val-share or --shares)"
    return [Problem(file.path, f"{file.test_rows:,} of its rows {what}", fix) for file in files if file.test_rows]


def _unsaved(config: DictConfig) -> list[str]:
    trainer = config.trainer
    return unsaved_validations(trainer.save_freq, trainer.test_freq, OmegaConf.select(config, _BEST, default=OFF))


def check_sources(config: DictConfig, files: Sequence[FileReport]) -> list[Problem]:
    """Report data sources that have their own reward settings but no rows."""
    key = f"{REWARD}.reward_kwargs.sources"
    there = set().union(*(file.sources for file in files))
    named = OmegaConf.select(config, key) or {}
    what = f"no row is of this source, only of {', '.join(sorted(there))}"
    return [
        Problem(f"{key}.{name}", what, "write it as in data_source") for name in named if there and name not in there
    ]


def check_keys(config: DictConfig) -> list[Problem]:
    """Report keys that the run needs but that have no value."""
    # Keys stay unresolved, because resolving one that refers to a missing key would raise an error.
    keys = set(_missing_keys(OmegaConf.to_container(config, resolve=False)))
    if not config.reward.reward_model.enable:
        keys = {key for key in keys if not key.startswith("reward.reward_model.")}
    keys = keys or {key for key in _REQUIRED if OmegaConf.select(config, key) is None}
    return [
        Problem(f"configuration key {key}", "it has no value", f"pass it on the command line: {key}=VALUE")
        for key in sorted(keys)
    ]


def _missing_keys(node: Any, prefix: str = "") -> Iterator[str]:
    if node == "???":
        yield prefix.removesuffix(".")
    elif isinstance(node, dict):
        for key, value in node.items():
            if prefix or key != "hydra":  # Hydra's own node is completed later
                yield from _missing_keys(value, f"{prefix}{key}.")


def check_load_format(config: DictConfig) -> list[Problem]:
    """Report dummy weights: vLLM must read the real weights when it starts."""
    key = "actor_rollout_ref.rollout.load_format"
    if OmegaConf.select(config, key) != "dummy":
        return []
    # vLLM >= 0.30 fills persistent buffers with dummy values too, and verl sends parameters only.
    what = "vLLM would keep random image normalisation, which the weight update never restores, and see wrong images"
    return [Problem(f"{key}=dummy", what, f"set {key}=auto")]


def check_batch_size(config: DictConfig, rows: int) -> list[Problem]:
    """Report a batch larger than ``rows``, the number of all training rows."""
    batch, rows = config.data.train_batch_size, _used_rows(config, rows)
    if not 0 < rows < batch:
        return []
    what = f"there are only {rows} training rows; verl drops the last incomplete batch, so there would be no step"
    return [Problem(f"data.train_batch_size={batch}", what, f"lower it to at most {rows}, or add rows")]


def check_dropped(train: Sequence[FileReport]) -> list[Problem]:
    """Report if verl would drop all training rows."""
    dropped = sum(file.dropped for file in train)
    if not dropped or dropped < sum(file.rows for file in train):
        return []
    what = "no row is left: all prompts are longer than data.max_prompt_length, and verl drops them"
    return [Problem("data.filter_overlong_prompts=true", what, "raise data.max_prompt_length")]


def _used_rows(config: DictConfig, rows: int) -> int:
    most = config.data.train_max_samples
    return min(rows, most) if most > 0 else rows


def prompt_lengths(config: DictConfig) -> tuple[PromptLength | None, list[Problem]]:
    """Return a counter of prompt tokens, or None and the problem if the model's processor cannot be loaded."""
    model = config.actor_rollout_ref.model
    try:
        processor = load_processor(model)
    except Exception as error:  # Hugging Face's loaders raise many kinds of errors, even a bare Exception
        return None, [processor_problem("actor_rollout_ref.model.path", model.path, error)]
    template, processing = (_plain(config.data[key]) for key in ("apply_chat_template_kwargs", "mm_processor_kwargs"))
    return PromptLength(processor, template, processing), []


def _plain(node: DictConfig | None) -> dict[str, Any]:
    # A DictConfig becomes a dict; OmegaConf declares one type for all kinds of nodes.
    return OmegaConf.to_container(node, resolve=True) if node else {}  # pyright: ignore[reportReturnType]


def _check_files(files: str | Sequence[str], config: DictConfig, lengths: PromptLength | None) -> list[FileReport]:
    labels = OmegaConf.select(config, f"{REWARD}.path") == OUR_REWARDS
    data, named = config.data, {"prompt": config.data.prompt_key, "images": config.data.image_key}
    drops_long = bool(data.filter_overlong_prompts)
    reports = [check_file(path, lengths, data.max_prompt_length, labels, named, drops_long) for path in paths_of(files)]
    for report in reports:
        if not report.path.endswith(".parquet"):
            what = "verl recognises a file's format by its extension, and does not know this one"
            report.problems.append(Problem(report.path, what, "rename it to end in .parquet"))
        if has_pattern(report.path):
            what = "verl reads this path as a pattern, and finds other files by it, or none"
            report.problems.append(Problem(report.path, what, "rename the file or folder without * ? [ and ::"))
    return reports
