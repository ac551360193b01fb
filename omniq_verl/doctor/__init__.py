"""Preflight checks of a GRPO run: bad input stops before Ray starts, in words that name it and the fix.

``checks.check_config`` takes the composed configuration of ``verl.trainer.main_ppo``. Training runs it
through ``preflight_hydra``, ``omniq doctor RECIPE`` runs it alone.
"""
