"""`python -m dripwell.web`: serve the public pages and the webhook until a signal."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from dripwell import bootstrap
from dripwell.core.errors import DripwellError
from dripwell.settings import Settings
from dripwell.web.app import serve


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="dripwell web")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        settings = Settings.read()
        with bootstrap.opened(settings, Path.cwd()) as installation:
            serve(installation, given.host, given.port or settings.web_port or bootstrap.WEB_PORT)
    except DripwellError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
