"""Run the `duet` command as `python -m infra.cli`, which needs no script on the PATH."""

from infra.cli.app import main

if __name__ == "__main__":
    main()
