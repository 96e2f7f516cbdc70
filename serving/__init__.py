"""Online: one request in, one ranked list out, with the level served and the reason in every answer."""
