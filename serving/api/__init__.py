"""The HTTP API: what a request may say, what is checked before it is read, and how answers and errors are written."""
