"""What every process needs and knows nothing of recommending: settings, clock, stores, embedded servers, CLI."""
