"""Gradients of verl's policy losses as the recipes set them: ``test_loss_recipes`` starts it in a process of its own.

    python tests/builders/loss_gradients.py BATCH.json

Prints, for each recipe, the loss and its gradient by the log-probabilities, without and with gated tokens.
"""

import json
import sys
from pathlib import Path

import torch
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.utils.config import omega_conf_to_dataclass

from omniq_verl.doctor.compose import compose_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


def main(path: Path) -> None:
    batch = json.loads(path.read_text())
    tensors = {name: torch.tensor(batch[name], dtype=torch.float64) for name in ("old", "new", "advantages", "mask")}
    gate = torch.tensor(batch["gate"], dtype=torch.float64)
    print(json.dumps({name: of_recipe(name, tensors, gate) for name in batch["recipes"]}))


def of_recipe(name: str, tensors: dict[str, torch.Tensor], gate: torch.Tensor) -> dict:
    actor = compose_recipe(f"losses/{name}", ["actor_rollout_ref.model.path=x"], RECIPES).actor_rollout_ref.actor
    config = omega_conf_to_dataclass(actor)
    config.global_batch_info["loss_scale_factor"] = config.loss_scale_factor
    plain, gated = (gradient(config, tensors, tensors["advantages"] * factor) for factor in (1.0, gate))
    names = ("loss_agg_mode", "clip_ratio_low", "clip_ratio_high", "tau_pos", "tau_neg", "loss_scale_factor")
    used = {name: getattr(config, name) for name in names}
    return {"plain": plain, "gated": gated, "mode": config.policy_loss.loss_mode, **used}


def gradient(config: object, tensors: dict[str, torch.Tensor], advantages: torch.Tensor) -> dict:
    new = tensors["new"].clone().requires_grad_()
    function = get_policy_loss_fn(config.policy_loss.loss_mode)
    mask = tensors["mask"].bool()
    loss, _ = function(tensors["old"], new, advantages, mask, config.loss_agg_mode, config, None)
    loss.backward()
    return {"loss": loss.item(), "gradient": new.grad.tolist()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
