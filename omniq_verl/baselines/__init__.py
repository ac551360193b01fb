"""SFT data for the baselines of the papers' tables: answers without reasoning."""
