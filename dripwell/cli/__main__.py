"""`python -m dripwell.cli` is `dripwell`."""

from dripwell.cli.main import main

main()
