"""What is logged of every answer, in batches and off the request path."""
