"""A bucket that answers as S3 does, on this machine."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def bucket(name: str = "duet") -> Iterator[str]:
    """Give the URI of an empty bucket; the variables that S3's clients read name its server meanwhile."""
    import s3fs
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            host, port = server.get_host_and_port()
            patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
            patch.setenv("AWS_ACCESS_KEY_ID", "tester")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "tester")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            s3fs.S3FileSystem(skip_instance_cache=True).mkdir(name)
            yield f"s3://{name}"
    finally:
        server.stop()
