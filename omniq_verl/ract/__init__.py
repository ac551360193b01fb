"""RACT: reasoning text as the common label of data sets (seed paper sec. 3.4, appendix C)."""
