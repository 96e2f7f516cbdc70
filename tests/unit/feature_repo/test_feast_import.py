import subprocess
import sys

import pytest

CHECKED = """
import sys
if sys.argv[1] == "ours":
    import feature_repo
from feast import Entity
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
print(any("typeguard" in str(method.__code__.co_consts) + str(method.__code__.co_names)
          for method in (Entity.__init__, PostgreSQLSource.__init__)))
"""


@pytest.mark.parametrize(("who", "checked"), [("ours", "False"), ("theirs", "True")])
def test_feast_is_imported_without_being_recompiled(who: str, checked: str) -> None:
    done = subprocess.run([sys.executable, "-c", CHECKED, who], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == checked
