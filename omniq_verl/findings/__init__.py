"""Questions about what a reasoning model's score rests on. Each is a command that writes numbers, plots and a page.

Source: section 3 of RALI (figures 2 to 4, tables 1 and A.1), and the question whether reasoning adds anything
(arXiv 2601.02441). Each finding has its own module; ``docs/guides/findings.md`` explains how to interpret them.
"""
