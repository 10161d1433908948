"""Errors say who must act and what to do next.

DripwellError
├── ConfigurationError    an operator must change a setting (names it)
├── ContentError          a marketer must change a file (carries every problem found, with path, line, column)
├── NotFoundError         there is no such campaign, subscriber, step …
├── RefusedError          a safety rule says no (says which command would make it yes)
├── InvalidTokenError     a link was forged, mangled or has expired
└── UnavailableError      a server we need does not answer; nothing was changed, trying again is right

What became of a provider call is never an exception: it is a value (see `dripwell.delivery.provider`).
"""


class DripwellError(Exception):
    """Any error Dripwell raises on purpose. `str()` is one or more sentences for a person."""


class ConfigurationError(DripwellError):
    """An operator must change a setting; the text names it."""


class ContentError(DripwellError):
    """A marketer must change a file; the text lists every problem with path, line and column."""


class NotFoundError(DripwellError):
    """What was asked for does not exist; the text names what does."""


class RefusedError(DripwellError):
    """A safety rule says no; the text says which command would make it yes."""


class InvalidTokenError(DripwellError):
    """A link was forged, mangled or has expired."""


class UnavailableError(DripwellError):
    """A server that is needed does not answer. Nothing was changed; trying again later is right."""
