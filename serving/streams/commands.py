"""`duet stream`: stores what is on the streams, as a process of its own."""

from typing import Annotated

import typer

from infra.cli.context import current_settings


def stream(
    ctx: typer.Context,
    *,
    alive: Annotated[bool, typer.Option("--alive", help="Only say whether such a process is at work.")] = False,
) -> None:
    """Store interactions and people from Redis Streams, until it is stopped."""
    import asyncio

    from infra.clock import SystemClock
    from infra.logging import configure_logging
    from serving.streams.consumer import consume
    from serving.streams.sign_of_life import require_life

    settings, clock = current_settings(ctx), SystemClock()
    if alive:
        require_life(settings, clock.now())
        return
    configure_logging(settings)
    asyncio.run(consume(settings, clock))
