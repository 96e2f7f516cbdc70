"""What steps make: where it is kept, where it comes from, and how a later step reads it."""
