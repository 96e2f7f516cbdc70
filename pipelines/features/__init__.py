"""Activity and reciprocity features as of a sequence of instants."""
