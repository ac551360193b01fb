"""Compose a recipe like ``verl.trainer.main_ppo``, without importing verl or torch."""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig

from omniq_verl.doctor.unread.check import similar_setting

# Hydra's error goes on with the advice "+KEY=VALUE", which would add a setting without effect.
_UNKNOWN = re.compile(r"Could not override '([^']*)'")


def compose_recipe(name: str, overrides: Sequence[str], config_dir: Path) -> DictConfig:
    """Compose the configuration of a run.

    Args:
        name: the recipe's path below ``config_dir``, without ``.yaml``, e.g. ``quickstart/grpo``.
        overrides: overrides as on the command line, e.g. ``data.train_batch_size=32``.
        config_dir: the folder of recipes.

    Raises:
        hydra.errors.HydraException: the recipe or a key does not exist.
        ModuleNotFoundError: verl is not installed.
    """
    verl = find_spec("verl")
    if verl is None or verl.origin is None:
        raise ModuleNotFoundError("verl is not installed; its default configuration is the base of every recipe")
    # This is a file path because "pkg://verl.trainer.config" would import verl with torch and Ray.
    defaults = Path(verl.origin).parent / "trainer" / "config"
    with initialize_config_dir(str(config_dir.resolve()), version_base=None):
        try:
            return compose(name, overrides=[*overrides, f"hydra.searchpath=[file://{defaults}]"])
        except ConfigCompositionException as error:
            if found := _UNKNOWN.match(str(error)):
                raise ConfigCompositionException(_no_such_setting(found[1])) from error
            raise


def _no_such_setting(key: str) -> str:
    meant = similar_setting(key)
    return f"{key}: there is no such setting. Fix: " + (f"use {meant}" if meant else "correct its name, or remove it")
