"""The `dripwell` command. Results go to stdout, progress and notes to stderr."""

from dripwell.cli.main import main

__all__ = ["main"]
