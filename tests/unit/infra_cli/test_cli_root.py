from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from infra.cli import build_app, current_settings, run
from infra.cli.app import global_options_first
from infra.errors import ConfigurationError, DuetError

COMMANDS = {"up", "down", "status", "restart", "doctor", "migrate", "demo"}


class Planted(EntryPoint):
    """An entry point that gives what was planted instead of importing a module."""

    def load(self) -> object:
        return _planted


def _planted(app: typer.Typer) -> None:
    @app.command("fail")
    def fail(ctx: typer.Context, how: str) -> None:
        if how == "ours":
            raise DuetError("the file people.csv\nhas no column [bold]user_id[/]; add it")
        if how == "bug":
            raise ZeroDivisionError("by zero")
        if how == "interrupt":
            raise KeyboardInterrupt
        if how == "exit":
            raise typer.Exit(3)
        typer.echo(str(current_settings(ctx).data_dir))


ENTRIES = [Planted("planted", "nowhere:register", "duet.commands")]
BROKEN = [EntryPoint("missing", "no_such_package.commands:register", "duet.commands")]


def fail(*arguments: str) -> int:
    return run(arguments, entries=ENTRIES)


def test_an_error_of_ours_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail("fail", "ours") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "error: the file people.csv has no column [bold]user_id[/]; add it\n"


def test_a_bug_is_one_line_that_says_how_to_see_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail("fail", "bug") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: unexpected ZeroDivisionError: by zero; run again with `duet --debug")
    assert error.count("\n") == 1


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail("--debug", "fail", "bug") == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["no-such-command"], ["fail"], ["fail", "x", "--no-such-option"], ["demo", "--people", "many"]]
)
def test_wrong_usage_is_one_line_and_exit_code_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert fail(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert "--help`)" in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_an_interrupted_command_ends_with_130() -> None:
    assert fail("fail", "interrupt") == 130


def test_a_command_chooses_its_exit_code() -> None:
    assert fail("fail", "exit") == 3


def test_the_data_directory_of_the_command_line_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUET_DATA_DIR", str(tmp_path / "environment"))
    assert fail("fail", "no") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "environment")
    assert fail("--data-dir", str(tmp_path / "option"), "fail", "no") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "option")


@pytest.mark.parametrize("words", ["fail no --data-dir {}", "fail --data-dir={} no", "fail --debug no --data-dir {}"])
def test_global_options_are_understood_behind_the_command_too(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail(*words.format(tmp_path).split()) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path)


def test_global_options_behind_a_double_dash_or_without_a_value_stay_where_they_are() -> None:
    assert global_options_first(["a", "--", "--debug"]) == ["a", "--", "--debug"]
    assert global_options_first(["a", "--data-dir"]) == ["a", "--data-dir"]
    assert fail("fail", "no", "--data-dir") == 2


@pytest.mark.parametrize("words", [["up"], ["up", "--detach"]])
def test_unsafe_production_settings_are_refused_before_anything_is_started(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUET_ENVIRONMENT", "production")
    monkeypatch.setenv("DUET_SERVING__AUTH__MODE", "off")
    folder = tmp_path / "data"
    assert run(["--data-dir", str(folder), *words], entries=[]) == 1
    assert "`DUET_SERVING__AUTH__MODE` is `off`, which is refused in production" in capsys.readouterr().err
    assert not folder.exists()


def test_a_broken_setting_is_named_when_it_is_needed_and_never_hides_the_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUET_SERVING__PORT", "harbour")
    assert fail("--help") == 0
    assert fail("fail", "--help") == 0
    capsys.readouterr()
    assert fail("fail", "no") == 1
    assert "DUET_SERVING__PORT" in capsys.readouterr().err


def test_a_package_that_cannot_be_loaded_does_not_take_the_rest_away(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"], entries=BROKEN) == 0
    printed = capsys.readouterr()
    assert "warning: the commands of `missing` are not available: ModuleNotFoundError" in printed.err
    assert all(command in printed.out for command in COMMANDS)


def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([], entries=[]) in {0, 2}
    shown = capsys.readouterr().out
    assert "duet up --detach" in shown
    assert "duet import synthetic --people 4000" in shown


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"], entries=[]) == 0
    assert "Example: " in capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"], entries=[]) == 0
    assert capsys.readouterr().out.startswith("duet ")


@pytest.mark.parametrize("command", [["status"], ["restart", "serving"]])
def test_beside_a_database_of_ones_own_it_is_said_what_shows_and_restarts_containers(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUET_DATABASE_URL", "postgresql://duet@postgres/duet")
    assert run(["--data-dir", str(tmp_path), *command], entries=[]) == 1
    assert "`docker compose` or `kubectl`" in " ".join(capsys.readouterr().err.split())


def test_status_without_a_platform_says_how_to_start_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--data-dir", str(tmp_path), "status"], entries=[]) == 1
    assert capsys.readouterr().err == f"error: no platform runs on {tmp_path}; start one with `duet up`\n"
    assert run(["--data-dir", str(tmp_path), "status", "--json"], entries=[]) == 1
    assert '"phase": "stopped"' in capsys.readouterr().out


def test_a_command_can_be_tried_without_the_root() -> None:
    app = typer.Typer()
    app.callback()(lambda: None)
    _planted(app)
    result = CliRunner().invoke(app, ["fail", "no"])
    assert result.exit_code == 0
    assert result.output.strip() == ".duet"
    assert CliRunner().invoke(build_app(ENTRIES), ["fail", "exit"]).exit_code == 3


def test_a_configuration_error_is_an_error_of_ours() -> None:
    assert issubclass(ConfigurationError, DuetError)


def test_packages_share_a_group_of_commands_without_importing_each_other() -> None:
    shown = CliRunner().invoke(build_app(), ["experiment", "--help"]).output
    assert all(f" {name} " in shown for name in ("start", "set-share", "stop", "show", "report"))
    assert shown.count(" report ") == 1
