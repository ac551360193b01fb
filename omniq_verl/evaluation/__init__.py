"""How good are the scores: correlations, runs, reports."""
