"""What stands in front of the pages of MLflow and Dagster: checks of Host, Origin and token, as ASGI middleware.

Both servers are open to whoever reaches their port, web pages in somebody's browser included. `guard` is added inside
each of them, by the hook that the framework has for it, so there is no second process and no address without it.
"""
