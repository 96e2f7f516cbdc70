"""MLflow as the registry: its REST API, what is logged to it, its flavours, and moves made in its pages."""
