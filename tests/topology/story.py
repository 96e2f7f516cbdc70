"""The platform of compose.yaml from Debian's packages: from nothing to a rollback, and what clients see of four deaths.

`python -m tests.topology.story FOLDER` in namespaces of its own; prints one JSON object. `make topology` runs it.
"""

import json
import os
import ssl
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.architecture.compose import COMPOSE
from tests.topology.load import ENOUGH, Load, steady, until_level
from tests.topology.machines import Machine, Network, run
from tests.topology.sampling import BY_ROLE

DOMAIN = "duet.test"
NAMES = (
    "postgres", "postgres-standby", "pgbouncer", "redis", "migrate", "mlflow", "dagster-code", "dagster-webserver",
    "dagster-daemon", "serving-1", "serving-2", "proxy", "cli",
)  # fmt: skip
PEOPLE = 400
DEAD_S = 8.0
"""How long each of those who are killed stays away."""
# A busy machine is no fault of the topology: requests may take longer than in production before they degrade.
PATIENT = {
    "DUET_SERVING__TIMEOUT_S": "20",
    "DUET_SERVING__DEADLINE_MS": "5000",
    "DUET_SERVING__QUEUE_TIMEOUT_MS": "5000",
    "DUET_SERVING__AUTH__REFRESH_S": "1",
    "DUET_REDIS__SOCKET_TIMEOUT_S": "1",
    "DUET_REDIS__CONNECT_TIMEOUT_S": "1",
    "DUET_POSTGRES__STATEMENT_TIMEOUT_S": "10",
    "DUET_POSTGRES__CHECKOUT_TIMEOUT_S": "2",
    "DUET_POSTGRES__REPLICA_MAX_LAG_S": "10",
}
ABANDONED = """
import psycopg, threading, os, time
url = os.environ["URL"]
connection = psycopg.connect(url, autocommit=True, application_name="abandoned", prepare_threshold=None)
threading.Thread(target=lambda: connection.execute("select pg_sleep(600)"), daemon=True).start()
time.sleep(2)
os._exit(0)
"""


class Story:
    """The machines, the client's side of the proxy, and what was seen so far."""

    def __init__(
        self, folder: Path, names: Sequence[str] = NAMES, environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.seen: dict[str, Any] = {}
        more = environment or {}
        self.network = Network(folder, {"DOMAIN": DOMAIN, "MLFLOW_ARTIFACTS": "/var/lib/duet/mlflow", **more})
        secrets = {**os.environ, "SECRETS_DIR": str(folder / "secrets")}
        run("sh", str(COMPOSE / "make-secrets.sh"), "full", DOMAIN, env=secrets)
        self.network.make(names)
        self.machines = {name: self._machine(name) for name in names}

    def _machine(self, name: str) -> Machine:
        commands = {
            # The image of PostgreSQL begins with one more step, see `make_database`.
            "postgres": ["postgres", "-D", str(self.folder / "volumes" / "postgres")],
            "redis": ["/usr/bin/redis-server", "/etc/redis/redis.conf", "--dir", str(self.folder)],
            "proxy": ["haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"],
            "postgres-standby": self.network.services["postgres-standby"]["entrypoint"],
            "serving-1": ["bentoml", "serve", "serving.service:Duet", "--host", "0.0.0.0", "--port", "8000"],  # noqa: S104
        }
        commands["serving-2"] = commands["serving-1"]
        command = commands.get(name) or self.network.services[name]["command"]
        if name == "postgres":
            command += self.network.services[name]["command"][1:]
        user = "postgres" if name in {"postgres", "postgres-standby", "pgbouncer"} else None
        patient = PATIENT if name.startswith("serving") else {}
        return Machine(self.network, name, command, user, {"LOGNAME": "duet", **patient})

    def begin(self, name: str, is_up: Callable[[], object], within_s: float = 180.0) -> None:
        """Start a machine and wait for it; raises AssertionError with the end of its log."""
        machine = self.machines[name]
        began = time.monotonic()
        machine.start()
        while not self._says(is_up):
            ended = machine.process is not None and machine.process.poll() is not None
            if ended or time.monotonic() - began > within_s:
                raise AssertionError(f"{name} is not up: {machine.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.3)
        self.seen.setdefault("up_after_s", {})[name] = round(time.monotonic() - began, 1)

    @staticmethod
    def _says(is_up: Callable[[], object]) -> bool:
        try:
            return bool(is_up())
        except (AssertionError, OSError, httpx.HTTPError):
            return False

    def secret(self, name: str) -> str:
        """Return a secret that make-secrets.sh made."""
        return (self.folder / "secrets" / name).read_text().strip()

    def make_database(self) -> None:
        """Do what the image of PostgreSQL does on an empty volume: make the cluster, the database and the roles."""
        data = self.folder / "volumes" / "postgres"
        data.mkdir(parents=True)
        password = self.folder / "owner"
        password.write_text(self.secret("postgres_password"))
        password.chmod(0o644)
        machine = self.machines["postgres"]
        machine._volumes()  # gives the folder to its account
        machine.run("initdb", "--pgdata", str(data), "--username", "duet", "--pwfile", str(password),
                    "--auth", "scram-sha-256", "--data-checksums", "--no-sync")  # fmt: skip
        self.begin("postgres", lambda: machine.run("pg_isready", "--host", "127.0.0.1"))
        machine.environment["PGPASSWORD"] = self.secret("postgres_password")
        machine.run("createdb", "--username", "duet", "--maintenance-db", "postgres", "duet")
        machine.environment |= {"POSTGRES_USER": "duet", "POSTGRES_DB": "duet"}
        machine.run("sh", "/etc/duet/postgres/roles.sh")

    def ready(self, name: str) -> Callable[[], object]:
        """Return whether a replica says that it is ready, as its own health check sees it."""
        probe = ["python", "-m", "infra.web.probe", "http://127.0.0.1:8000/health/ready"]
        return lambda: self.machines[name].run(*probe) == ""

    def duet(self, *words: str) -> str:
        """Run a `duet` command as `docker compose run --rm cli` does."""
        return self.machines["cli"].run("duet", *words)

    def start_stores(self) -> None:
        """Start PostgreSQL with its standby, the pooler and Redis."""
        self.make_database()
        self.begin("postgres-standby", lambda: self.machines["postgres-standby"].run("pg_isready", "-h", "127.0.0.1"))
        self.begin("pgbouncer", lambda: self.machines["pgbouncer"].run("pg_isready", "-h", "127.0.0.1", "-p", "6432"))
        self.begin("redis", lambda: "NOAUTH" in self.machines["redis"].run("redis-cli", "ping"))
        self.machines["migrate"].run(*self.machines["migrate"].command)

    def start_pipelines(self) -> None:
        """Start MLflow and Dagster's three processes."""
        probe = ["python", "-m", "infra.web.probe"]
        self.begin("mlflow", lambda: not self.machines["mlflow"].run(*probe, "http://127.0.0.1:5000/health"))
        check = self.network.services["dagster-code"]["healthcheck"]["test"][1:]
        self.begin("dagster-code", lambda: self.machines["dagster-code"].run(*check))
        page = "http://127.0.0.1:3000/server_info"
        self.begin("dagster-webserver", lambda: not self.machines["dagster-webserver"].run(*probe, page))
        alive = self.network.services["dagster-daemon"]["healthcheck"]["test"][1:]
        self.begin("dagster-daemon", lambda: self.machines["dagster-daemon"].run(*alive))

    def first_release(self) -> str:
        """Import people, train on them and promote what came of it; return an API key."""
        self.duet("import", "synthetic", "--people", str(PEOPLE), "--seed", "7")
        key = self.duet("keys", "create", "website").split()[0]
        self.duet("train")
        self.duet("promote", "--force", "--reason", "the first", "--no-wait")
        return key

    def start_serving(self) -> None:
        """Start both replicas and the proxy."""
        for name in ("serving-1", "serving-2"):
            self.begin(name, self.ready(name))
        open_port = ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8443 && echo open"]
        self.begin("proxy", lambda: self.machines["proxy"].run(*open_port))

    def client(self, name: str = DOMAIN, **more: Any) -> httpx.Client:
        """Return a client that goes through the proxy, over TLS, and knows its certificate."""
        trusted = ssl.create_default_context(cafile=str(self.folder / "secrets" / "certificate.pem"))
        proxy = self.network.addresses["proxy"]
        with Path("/etc/hosts").open("a") as hosts:
            hosts.write(f"{proxy} {name}\n")
        return httpx.Client(base_url=f"https://{name}:8443", verify=trusted, timeout=30, trust_env=False, **more)

    def tell(self) -> None:
        """Go from nothing to a rollback, then through the deaths."""
        self.start_stores()
        self.seen["abandoned"] = self.abandoned_statement()
        self.start_pipelines()
        key = self.first_release()
        self.start_serving()
        with self.client(headers={"Authorization": f"Bearer {key}"}) as client:
            self.seen["pages"] = self.pages(client)
            load = Load(client, range(1, PEOPLE + 1))
            until_level(load, 1)
            self.seen["first"] = load.ask(42)
            self.seen["roles"] = self.roles()
            self.releases(load)
            with steady(client, range(1, PEOPLE + 1)) as load:
                self.deaths(load)

    def abandoned_statement(self) -> int:
        """Return how many statements still run of a client of PgBouncer that left in the middle of one."""
        machine = self.machines["cli"]
        machine.environment["URL"] = self.secret("serving_database_url")
        machine.run("python", "-c", ABANDONED)
        time.sleep(5)
        count = "select count(*) from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> pg_backend_pid()"
        return int(self.machines["postgres"].run("psql", "-At", "-U", "duet", "-d", "duet", "-c", count))

    def roles(self) -> list[str]:
        """Return who is connected to PostgreSQL."""
        lines = self.machines["postgres"].run("psql", "-At", "-U", "duet", "-d", "duet", "-c", BY_ROLE).splitlines()
        return [line.partition("|")[0] for line in lines]

    def pages(self, client: httpx.Client) -> dict[str, Any]:
        """Return what MLflow and Dagster answer at their names, without and with the token, and what is closed."""
        found: dict[str, Any] = {"metrics": client.get("/metrics").status_code}
        token = {"Authorization": f"Bearer {self.secret('web_token')}"}
        with self.client(f"mlflow.{DOMAIN}") as mlflow:
            found["mlflow"] = mlflow.get("/").status_code
            search = "/api/2.0/mlflow/registered-models/search"
            models = mlflow.get(search, headers=token).json()["registered_models"]
            found["models"] = sorted(model["name"] for model in models)
        with self.client(f"dagster.{DOMAIN}") as dagster:
            found["dagster"] = dagster.get("/").status_code
            query = "{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus } } } }"
            answer = dagster.post("/graphql", json={"query": query}, headers=token).json()
            found["locations"] = answer["data"]["workspaceOrError"]["locationEntries"]
        return found

    def releases(self, load: Load) -> None:
        """Train and promote a second release, then roll back to the first."""
        first = self.seen["first"]["release"]
        self.duet("train", "--job", "train_ranker", "--set", "ranker.learning_rate=0.2")
        self.duet("promote", "--force", "--reason", "the second")
        second = load.ask(42)["release"]
        self.duet("rollback")
        self.seen["releases"] = [first, second, load.ask(42)["release"]]

    def deaths(self, load: Load) -> None:
        """Kill one after the other, start it again, and note every answer meanwhile and how long the return took."""
        self.seen["deaths"] = {}
        ways: dict[str, Callable[[], object]] = {
            "serving-1": self.ready("serving-1"),
            "postgres-standby": lambda: self.machines["postgres-standby"].run("pg_isready", "-h", "127.0.0.1"),
            "pgbouncer": lambda: self.machines["pgbouncer"].run("pg_isready", "-h", "127.0.0.1", "-p", "6432"),
            "redis": lambda: "NOAUTH" in self.machines["redis"].run("redis-cli", "ping"),
        }
        until_level(load, 1)
        load.taken()
        for name, is_up in ways.items():
            self.machines[name].kill()
            time.sleep(DEAD_S)
            without = load.taken(ENOUGH)
            self.begin(name, is_up)
            back_s = until_level(load, 1)
            self.seen["deaths"][name] = {"without": without, "returning": load.taken(ENOUGH), "level_1_after_s": back_s}


def main() -> None:
    """Tell the story and print what was seen; the machines end with this process."""
    story = Story(Path(sys.argv[1]))
    try:
        story.tell()
    except AssertionError as failure:
        story.seen["failure"] = str(failure)
    finally:
        for machine in story.machines.values():
            machine.kill()
    print(json.dumps(story.seen))  # noqa: T201 the report


if __name__ == "__main__":
    main()
