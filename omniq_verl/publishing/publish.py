"""Write a model folder that others can use, and upload it."""

import json
import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omniq_verl.data.files import replace_text, whole_text
from omniq_verl.families.about import OURS
from omniq_verl.generation.model_folder import check_model_folder
from omniq_verl.generation.weights import PICKLED
from omniq_verl.publishing.card import CardOptions, card, omniq_json
from omniq_verl.publishing.facts import BadRun, RunFacts, read_evaluation, read_run

CARD = "README.md"


@dataclass(frozen=True)
class Publication:
    """Everything that would be written."""

    run: RunFacts
    files: Sequence[Path]
    """Copied from the checkpoint."""
    card: str
    about: dict[str, Any]
    """Contents of ``omniq.json``."""

    def lines(self) -> list[str]:
        """One for each file, with its size."""
        copied = [f"{path.name}: {path.stat().st_size:,} bytes" for path in self.files]
        return [*copied, f"{CARD}: {len(self.card.encode()):,} bytes", f"{OURS}: {len(_text(self.about)):,} bytes"]


def prepare(run: Path, options: CardOptions, evaluations: Sequence[Path]) -> Publication:
    """Read the run and its evaluations, and check both; nothing is written.

    Raises:
        ValueError: no model, one that is not safe or not whole, an evaluation of other weights, or no such task.
    """
    facts = read_run(run)
    check_model_folder(str(facts.model))
    measured = [read_evaluation(folder, facts.weights) for folder in evaluations]
    files = [path for path in sorted(facts.model.iterdir()) if _is_published(path)]
    return Publication(facts, files, whole_text(card(facts, options, measured)), omniq_json(facts, options, measured))


def _is_published(path: Path) -> bool:
    """Files of a model, but no pickles, code, earlier cards or hidden files."""
    left_out = path.suffix in (*PICKLED, ".py") or path.name in (CARD, OURS) or path.name.startswith(".")
    return path.is_file() and not left_out


def write(publication: Publication, out: Path) -> None:
    """Write the folder; it is there as a whole or not at all.

    Raises:
        BadRun: the folder exists already.
    """
    if out.exists():
        raise BadRun(f"{out} exists already. Fix: give another name, or move it away")
    unfinished = out.with_name(f"{out.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for path in publication.files:
        shutil.copyfile(path, unfinished / path.name)
    replace_text(unfinished / CARD, publication.card)
    replace_text(unfinished / OURS, _text(publication.about))
    os.replace(unfinished, out)


def push(folder: Path, name: str, private: bool) -> str:
    """Upload a published folder to the Hugging Face hub; returns its address.

    Raises:
        BadRun: the hub rejects it, for example because nobody is logged in, or cannot be reached.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(name, repo_type="model", private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload by omniq publish")
    except Exception as error:  # whatever its HTTP library raises
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadRun(
            f"{name}: it cannot be uploaded, the folder {folder} is complete ({why}). Fix: `hf auth login`, check the"
            f" name and the network, then `hf upload {name} {shlex.quote(str(folder))}`"
        ) from error
    return f"https://huggingface.co/{name}"


def _text(about: dict[str, Any]) -> str:
    return json.dumps(about, indent=2) + "\n"
