"""Dripwell turns an article into a series of emails and sends it to people who asked for it, once each."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("dripwell")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0"
