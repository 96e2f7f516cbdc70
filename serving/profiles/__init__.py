"""People as apps write and read them."""
