"""Synthetic worlds with a known truth: who lives there, who meets whom, and what they decide."""
