"""What app developers get: clients generated from the OpenAPI document, and the check that keeps v1 of it stable."""
