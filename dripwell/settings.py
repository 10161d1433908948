"""Everything that differs between two installations, read once from the environment. The only reader of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from dripwell.core.errors import ConfigurationError
from dripwell.core.network import networks

_SMTP = "DRIPWELL_SMTP_URL"
_PLAIN = ("DATABASE_URL", "REDIS_URL", "SENDGRID_API_KEY")


class Settings(BaseModel):
    """What marketers and operators may see and review lives in `config/site.yaml`, not here."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    database_url: SecretStr | None = None  # None: the embedded PostgreSQL; secret, because it may hold a password
    redis_url: SecretStr | None = None  # None: the embedded Valkey
    sendgrid_api_key: SecretStr | None = None  # None, and no smtp_url: the sandbox
    smtp_url: SecretStr | None = None  # smtp+starttls://user:password@host:587: a mail server instead of SendGrid
    smtp_bounces: str | None = None  # the return path of bounces, such as bounces+*@mail.example.com
    smtp_baa: bool = False  # whoever runs that server has signed an agreement for health data
    provider_url: str | None = None  # where the provider's API is; None: the real one, or the sandbox that `run` starts
    webhook_key: str | None = None  # base64 DER public key that signs the provider's events
    secret_key: SecretStr | None = None  # signs links; None: made once in the state directory
    unsubscribe_key: SecretStr | None = None  # signs unsubscribe links; never change it
    pepper: SecretStr | None = None  # keys the address hashes; never change it
    state_dir: Path = Path(".dripwell")
    base_url: str | None = None  # overrides `links.base_url` in the sandbox, so that its links open on this machine
    web_port: int | None = None
    trusted_proxy: str | None = None  # whose X-Forwarded-For is believed: addresses and networks; None: nobody's
    sandbox_port: int | None = None
    crash_at: str | None = None  # tests only: die at this failpoint; refused with a live provider
    stall_at: str | None = None  # tests only: stop at this failpoint; refused with a live provider

    @property
    def live(self) -> bool:
        """Whether mail would leave the building: no sandbox stands in for the provider."""
        return self.provider != "sandbox"

    @property
    def live_by(self) -> str | None:
        """The variable that makes mail leave the building; None in the sandbox."""
        return {"smtp": "DRIPWELL_SMTP_URL", "sendgrid": "SENDGRID_API_KEY", "sandbox": None}[self.provider]

    @property
    def provider(self) -> Literal["sandbox", "sendgrid", "smtp"]:
        """Which provider mails go to."""
        if self.smtp_url is not None:
            return "smtp"
        return "sandbox" if self.sendgrid_api_key is None else "sendgrid"

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read DATABASE_URL, REDIS_URL, SENDGRID_API_KEY and DRIPWELL_*.

        An empty value counts as unset; a misspelled DRIPWELL_ name is an error, not a silence.
        """
        ours = {
            name.removeprefix("DRIPWELL_").lower(): value
            for name, value in environ.items()
            if value and (name.startswith("DRIPWELL_") or name in _PLAIN)
        }
        try:
            found = cls.model_validate(ours)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]).upper() if first["loc"] else "the environment"
            name = name if name in _PLAIN else f"DRIPWELL_{name}"
            if first["type"] == "extra_forbidden":
                known = ", ".join(sorted(cls.variables()))
                raise ConfigurationError(f"{name} is not a setting. Settings are: {known}") from None
            said = "write yes or no" if first["type"].startswith("bool") else first["msg"]
            raise ConfigurationError(f"{name}: {said}") from None
        try:
            networks(found.trusted_proxy or "")
        except ValueError:
            raise ConfigurationError(
                "DRIPWELL_TRUSTED_PROXY cannot be read: write addresses or networks, separated by commas, such as "
                "127.0.0.1, 10.0.0.0/8"
            ) from None
        _check_url("DATABASE_URL", found.database_url, ("postgresql", "postgres"))
        _check_url("REDIS_URL", found.redis_url, ("redis", "rediss", "unix"))
        _check_url(_SMTP, found.smtp_url, ("smtp+starttls", "smtps", "smtp"))
        if found.smtp_url is not None and found.sendgrid_api_key is not None:
            raise ConfigurationError("DRIPWELL_SMTP_URL and SENDGRID_API_KEY are both set: mail goes one way")
        if found.live and (found.crash_at or found.stall_at):
            raise ConfigurationError("DRIPWELL_CRASH_AT and DRIPWELL_STALL_AT are for tests: unset them to mail live")
        return found

    def check_live(self) -> None:
        """Raise ConfigurationError when mail would leave the building and a secret or the webhook's key is missing."""
        if not self.live:
            return
        given = {
            "DRIPWELL_SECRET_KEY": self.secret_key,
            "DRIPWELL_UNSUBSCRIBE_KEY": self.unsubscribe_key,
            "DRIPWELL_PEPPER": self.pepper,
        }
        missing = [name for name, value in given.items() if value is None]
        if missing:
            raise ConfigurationError(
                f"{', '.join(missing)} must be set with a live provider: links and the suppression ledger hang on them "
                "for ever. Keep them apart from the database's backups."
            )
        if self.provider == "sendgrid" and self.webhook_key is None:
            raise ConfigurationError(
                "DRIPWELL_WEBHOOK_KEY is missing: with a live provider, unsigned events are never believed. "
                "Copy the public key from the provider's event webhook settings."
            )

    @classmethod
    def variables(cls) -> list[str]:
        """The environment names that `read` knows."""
        return [name.upper() if name.upper() in _PLAIN else f"DRIPWELL_{name.upper()}" for name in cls.model_fields]

    @staticmethod
    def environment(**changes: str) -> dict[str, str]:
        """This process's environment with `changes`, for a child process."""
        return {**os.environ, **changes}


def _check_url(name: str, url: SecretStr | None, schemes: tuple[str, ...]) -> None:
    # Here too, so that `run` says it before it starts anything. Never with the URL: it may hold a password.
    if url is None:
        return
    try:
        parts = urlsplit(url.get_secret_value())
        # postgresql+driver:// is the same address; of SMTP, what stands behind the plus is how the line is encrypted.
        scheme = parts.scheme if name == _SMTP else parts.scheme.partition("+")[0]
        _ = parts.port  # raises when it is not a number
    except ValueError:
        raise ConfigurationError(
            f"{name} cannot be read: it is an address such as {schemes[0]}://user@host:port/name"
        ) from None
    if scheme not in schemes:
        wanted = ", ".join(f"{one}://" for one in (schemes if name == _SMTP else schemes[:1]))
        raise ConfigurationError(f"{name} must start with {' or '.join(wanted.rsplit(', ', 1))}")
