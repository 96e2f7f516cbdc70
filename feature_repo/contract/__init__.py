"""What fits the database: the rules for rows of people, the same for imports and for the API."""
