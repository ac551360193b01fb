"""Reasoning to learn from: plan, reason by the plan, keep what is right, drop the plan (OmniQuality-R, sec. 3.1)."""
