"""Celery, all of it and nothing else: doorbells, the clock that rings them, and the bell that listens to PostgreSQL."""

if __name__ != "dripwell.workers":
    raise ImportError("import dripwell.workers: under another name Celery would make a second app")

from .app import app

__all__ = ["app"]
