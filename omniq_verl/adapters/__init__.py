"""Scorers in the form that other packages expect: pyiqa, torchmetrics, pandas, datasets and ComfyUI."""
