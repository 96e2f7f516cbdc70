"""`duet recommend`: asks the running serving app, as any client would, and prints the answer."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.console import out, print_note, table
from infra.cli.context import current_settings
from infra.variables import API_KEY_VARIABLE

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 10.0


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    from serving.access.commands import keys
    from serving.experiments.commands import register_experiment
    from serving.streams.commands import stream

    app.command("recommend", epilog="Example: duet recommend 42 --limit 5 --explain")(recommend)
    app.command("stream", epilog="Example: DUET_STREAM__BATCH=100 duet stream")(stream)
    app.add_typer(keys, name="keys")
    register_experiment(app)


def recommend(
    ctx: typer.Context,
    user_id: Annotated[str, typer.Argument(help="Who the people are for: their number, or the name they came with.")],
    *,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Most people to show.")] = 10,
    explain: Annotated[bool, typer.Option("--explain", help="Name the strongest features of each person.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as the service sent it.")] = False,
    key: Annotated[
        str | None, typer.Option(envvar=API_KEY_VARIABLE, help="API key, where the service asks for one.")
    ] = None,
) -> None:
    """Recommend people to a person."""
    from infra.supervisor.platform import serving_url
    from serving.people.names import number_in

    number = number_in(user_id)
    body = {"user_id": user_id if number is None else number, "limit": limit, "explain": explain}
    answer = _ask(serving_url(current_settings(ctx)), body, key)
    if as_json:
        typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    columns = ["#", "user", "score", "likes", "liked back", "found by", *(["strongest features"] if explain else [])]
    rows = [_row(item, explain=explain) for item in answer["items"]]
    level = f"level {answer['level']} ({answer['level_name']})"
    order = f", in the order of the {answer['order']}" if answer["order"] else ""
    title = f"{len(rows)} people for {user_id}: {level}, release {answer['release'] or 'none'}{order}"
    out().print(table(title, columns, rows, right=(0, 1, 2, 3, 4)))
    if answer["message"]:
        print_note(str(answer["message"]))
    print_note(f"{answer['timings_ms']['total']:.1f} ms in the service, request {answer['request_id']}")


def _ask(url: str, body: dict[str, Any], key: str | None) -> dict[str, Any]:
    import httpx

    from serving.errors import NotServing, RefusedByService

    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    try:
        response = httpx.post(
            f"{url}/v1/recommendations", json=body, headers=headers, timeout=_TIMEOUT_S, trust_env=False
        )
    except httpx.HTTPError as error:
        raise NotServing(f"The serving app does not answer at {url}: start it with `duet up`.") from error
    answer = _content(response)
    if response.status_code != httpx.codes.OK or answer is None or "items" not in answer:
        said = (answer or {}).get("error", {}).get("message", "what it sent is no answer of Duet")
        raise RefusedByService(f"The serving app at {url} answered {response.status_code}: {said}")
    return answer


def _content(response: "httpx.Response") -> dict[str, Any] | None:
    try:
        content = response.json()
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _row(item: dict[str, Any], *, explain: bool) -> list[str]:
    row = [
        str(item["position"]),
        str(item["user_id"]),
        f"{item['score']:.3f}",
        _share(item["p_like"]),
        _share(item["p_liked_back"]),
        ", ".join(item["sources"]),
    ]
    return [*row, _strongest(item["explanation"])] if explain else row


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _strongest(explanation: dict[str, Any] | None) -> str:
    if explanation is None:
        return "-"
    parts = [f"{one['feature']} {one['contribution']:+.2f}" for one in explanation["p_like"][:3]]
    return ", ".join(parts)
