"""Files of any size as streams of batches: opened, checked before the first row, and brought to a few types."""
