"""Erases people from every place that holds them, and keeps the proof."""
