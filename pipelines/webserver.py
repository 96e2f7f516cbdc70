"""Dagster's web server with our checks of Host, Origin and token: `python -m pipelines.webserver --workspace …`.

The server, its command and its options are Dagster's own; what is added stands where its class has a hook for it. Its
GraphQL endpoint takes mutations by GET and by forms, which a link or a page in a browser can send: here only a POST of
JSON may change anything.
"""

import dagster_webserver.app
from dagster_webserver.cli import main
from dagster_webserver.webserver import DagsterWebserver
from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from infra.settings import load_settings
from infra.web.guard import AccessMiddleware, guard_options
from infra.web.limits import HttpLimits, limit_http

_JSON = ("application/json", "application/graphql")


class GuardedWebserver(DagsterWebserver):  # type: ignore[type-arg]
    """Dagster's web server inside our checks."""

    def build_middleware(self) -> list[Middleware]:
        """Return the middleware, ours first."""
        settings = load_settings()
        options = guard_options(settings, settings.dagster.host)
        return [Middleware(AccessMiddleware, options), *super().build_middleware()]

    async def graphql_http_endpoint(self, request: Request) -> Response:
        """Answer one GraphQL request, if its form is fit for what it does."""
        refusal = graphql_refusal(request)
        if refusal is not None:
            return refusal
        answer: Response = await super().graphql_http_endpoint(request)
        return answer


def graphql_refusal(request: Request) -> Response | None:
    """Return the answer to a request that a page or a link of others could have made, None for all others."""
    if request.method == "POST":
        content_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if content_type in _JSON:
            return None
        return PlainTextResponse("Send GraphQL as `Content-Type: application/json`.", 415)
    query = request.query_params.get("query")
    if query is None or _only_reads(query):
        return None
    return PlainTextResponse("Only queries can be sent by GET: send this one by POST.", 405, {"Allow": "POST"})


def _only_reads(query: str) -> bool:
    try:
        document = parse(query)
    except (GraphQLError, RecursionError):
        return False
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    return all(node.operation is OperationType.QUERY for node in operations)


if __name__ == "__main__":
    limit_http(HttpLimits())
    dagster_webserver.app.DagsterWebserver = GuardedWebserver  # type: ignore[attr-defined]
    main()  # type: ignore[no-untyped-call]
