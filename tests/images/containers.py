"""Runs the images that `make images` has built: with Docker where its daemon answers, else with Podman."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SERVING = "localhost/duet-serving"
PIPELINES = "localhost/duet-pipelines"
NAME = "duet-image-test"
USER = 10001
LIMITS = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=2048:2048"]
# What compose and the chart give them, too: nothing of the machine, and nothing to write to but data and /tmp.
CONFINED = ["--read-only", "--tmpfs=/tmp", "--cap-drop", "all", "--security-opt", "no-new-privileges"]


@cache
def engine() -> list[str] | None:
    """Return the command that runs containers here; None where there is none."""
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
        return ["docker"]
    if shutil.which("podman") is None:
        return None
    # Podman's default runtime refuses machines that have both generations of control groups, runc does not.
    runtime = ["--runtime", "runc", "--cgroup-manager", "cgroupfs"] if shutil.which("runc") else []
    return ["podman", *runtime]


def missing() -> str | None:
    """Return why the images cannot be tested here; None where they can."""
    found = engine()
    if found is None:
        return "neither a Docker daemon nor podman is here"
    for image in (SERVING, PIPELINES):
        if subprocess.run([*found, "image", "inspect", image], capture_output=True, check=False).returncode:
            return f"there is no {image}: `make images` builds it"
    return None


def said(*words: str) -> str:
    """Run one command of the engine and return what it printed."""
    done = subprocess.run([*(engine() or []), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def inside(image: str, script: str, *options: str) -> str:
    """Run a shell script in a fresh container of an image and return what it printed."""
    return said("run", "--rm", *LIMITS, *CONFINED, *options, image, "sh", "-c", script)


def described(image: str) -> dict[str, Any]:
    """Return the image's configuration and size as the engine tells it."""
    [found] = json.loads(said("image", "inspect", image))
    return dict(found)


@dataclass(frozen=True)
class Container:
    """A running container on the machine's own network."""

    name: str

    def stop(self) -> int:
        """End it as an orchestrator does, with SIGTERM, and return its exit code."""
        said("stop", "--time", "30", self.name)
        return int(said("inspect", "--format", "{{.State.ExitCode}}", self.name))

    def run(self, *words: str) -> str:
        """Run a command in it and return what it printed."""
        return said("exec", self.name, *words)

    def log(self) -> str:
        """Return what it has written so far."""
        done = subprocess.run([*(engine() or []), "logs", self.name], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr


@contextmanager
def container(image: str, data_dir: Path, environment: Mapping[str, str]) -> Iterator[Container]:
    """Run an image's own command for the length of the block; `data_dir` is its only folder that stays."""
    for path in [data_dir, *data_dir.rglob("*")]:
        os.chown(path, USER, USER)
    variables = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
    mount = ["--volume", f"{data_dir}:/var/lib/duet"]
    said("run", "--detach", "--name", NAME, "--network", "host", *LIMITS, *CONFINED, *mount, *variables, image)
    try:
        yield Container(NAME)
    finally:
        said("rm", "--force", NAME)
