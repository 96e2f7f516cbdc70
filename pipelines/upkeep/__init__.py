"""The days that have passed: their figures, and the totals that old rows are folded into."""
