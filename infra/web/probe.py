"""Asks a page whether a server is healthy, for containers, which have no curl: `python -m infra.web.probe URL`.

Only the standard library is imported: a container asks every few seconds, and each question is a process of its own.
"""

import sys
import urllib.error
import urllib.request

_TIMEOUT_S = 5.0


def problem(url: str, timeout_s: float = _TIMEOUT_S) -> str | None:
    """Return None where `url` answers 200, else why it counts as unhealthy."""
    if not url.startswith(("http://", "https://")):
        return f"`{url}` is not a URL of the form `http://host:port/path`"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s) as response:
            return None if response.status == 200 else f"{url} answers {response.status}"
    except urllib.error.HTTPError as refusal:
        return f"{url} answers {refusal.code}: {refusal.read(300).decode(errors='replace')}"
    except (OSError, ValueError) as failure:
        return f"{url} does not answer: {failure}"


def main() -> None:
    """Exit with 0 where the page named by the only argument answers 200, else with 1 and the reason."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m infra.web.probe URL")
    sys.exit(problem(sys.argv[1]))


if __name__ == "__main__":
    main()
