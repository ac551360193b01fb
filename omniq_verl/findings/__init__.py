"""Questions about what a reasoning model's score rests on, each a command with numbers, a plot and a page.

Source: section 3 of RALI (figures 2 to 4, tables 1 and A.1), and the question whether reasoning adds anything
(arXiv 2601.02441). One module for each finding; ``docs/guides/findings.md`` says how to read them.
"""
