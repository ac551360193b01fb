"""``make quickstart``: data, tiny model, SFT, GRPO and measurement in one resumable run on two CPU cores."""
