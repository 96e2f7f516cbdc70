"""How `make soak` names a process."""

import pytest

from tests.topology.sampling import part


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["postgres", "-D", "/data"], "postgres"),
        (["postgres: duet_serving duet 172.30.66.131(40128) idle"], "connections"),
        (["postgres: walsender replicator 172.30.66.130(40128) streaming 0/3915CA8"], "background"),
        (["postgres: checkpointer "], "background"),
        (["/usr/bin/redis-server *:6379"], "redis-server"),
        (["/venv/bin/python", "/venv/bin/dagster-daemon", "run", "--workspace", "x"], "dagster-daemon run"),
        (["/venv/bin/python", "-m", "dagster", "api", "grpc", "--socket", "x"], "dagster api grpc"),
        (["python", "-m", "pipelines.webserver", "--host", "x"], "pipelines.webserver"),
        (["/venv/bin/python", "-c", "from multiprocessing.spawn import spawn_main; spawn_main()"], "spawned"),
    ],
)
def test_a_process_is_named_by_what_it_does(words: list[str], name: str) -> None:
    assert part(words) == name
