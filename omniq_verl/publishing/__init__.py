"""Trained models as folders that others can use: weights, card, ``omniq.json``; and a leaderboard of evaluations."""
