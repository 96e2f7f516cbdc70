"""From one request to one answer: the levels, the stages, and the people in order."""
