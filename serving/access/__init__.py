"""Who may call: API keys, where they are kept, and how many calls each may make."""
