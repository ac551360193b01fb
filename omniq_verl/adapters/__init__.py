"""Scorers in the form that other packages expect, such as pyiqa, torchmetrics, pandas, datasets and ComfyUI."""
