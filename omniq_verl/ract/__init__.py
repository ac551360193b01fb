"""RACT: align data sets through reasoning text instead of scores (seed paper sec. 3.4, appendix C)."""
