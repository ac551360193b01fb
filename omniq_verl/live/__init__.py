"""A check of a training run by its real parts, before it runs: rollout engine, trained model, rewards."""
