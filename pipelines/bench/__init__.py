"""Measure the serving app on synthetic worlds of a stated size, beside what a tutorial would have written."""
