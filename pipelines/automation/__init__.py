"""What Dagster does by itself: schedules, sensors, and how fresh results must be."""
