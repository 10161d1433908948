"""SendGrid's Recipients' Data Erasure API: `POST /v3/recipients/erasejob`, a request it works through later.

At most 5,000 addresses or 256 KB a call and 100 calls a minute; a parent account erases nothing of its subusers (rules
1.20). What it keeps as metadata of a message, our custom args, it cannot erase: they are random (rules 1.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from dripwell.delivery.line import Answer, told
from dripwell.delivery.provider import Erasing

MOST = 900
"""Addresses in one call: each at its longest, 254 bytes and what JSON adds, 900 of them are below 256 KB."""

_WHY = {
    401: "the key is refused: set SENDGRID_API_KEY to a key that is valid",
    403: "the key may not erase: give it full access in the provider's console, or erase there by hand",
    404: "the account has no such request: ask the provider's support, or erase there by hand",
    429: "too many requests: asked again later",
}


def answered(answer: Answer, value: Mapping[str, Any] | None, retry_after: timedelta | None) -> Erasing:
    """Read the answer; `value` is the object it carries. A 202 without a job id is taken at its word."""
    status = answer.status
    if status == 202:
        job = value.get("job_id") if value is not None else None
        return Erasing(accepted=True, job_id=told(job, 80) if isinstance(job, str) else "", reason="taken")
    errors = value.get("errors") if value is not None else None
    words = "; ".join(
        message
        for error in (errors if isinstance(errors, list) else ())
        if isinstance(error, dict) and isinstance(message := error.get("message"), str)
    )
    said = _WHY.get(status) or told(words) or "no answer that can be read"
    return Erasing(
        accepted=False,
        reason=f"{status}: {said}",
        retry_after=retry_after if status == 429 else None,
        at_fault=status in (400, 413),
    )
