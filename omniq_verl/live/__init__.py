"""Check the real parts of a training run before it starts: rollout engine, trained model, rewards."""
