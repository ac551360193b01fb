"""Preflight checks of a training run: bad input is reported with a fix before Ray starts.

``checks.check_config`` takes the composed configuration of ``verl.trainer.main_ppo``. Training runs it through
``preflight_hydra``; ``omniq doctor RECIPE`` runs it on its own.
"""
