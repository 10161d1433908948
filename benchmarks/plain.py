"""The plain Celery design, as a baseline: honest code that anybody would write first.

One task an email, with a countdown; the task renders the template for its person with Jinja and calls the provider with
its own package. There is no ledger: what was mailed is what the queue says. It is as fast as such code is, and loses or
doubles mail whenever a worker is killed (see `docs/adr/0002-accepted-once.md`).

Run as a script it waits until the worker's children are warm, puts so many tasks into the queue and prints how many
seconds they took.
"""

from __future__ import annotations

import os
import sys
import time

import sendgrid
from celery import Celery
from jinja2 import Environment
from redis import Redis
from sendgrid.helpers.mail import Content, Email, Mail, To

app = Celery("plain", broker=os.environ.get("REDIS_URL", "redis://127.0.0.1"))
app.conf.update(task_ignore_result=True, task_default_queue="plain")
DONE = "plain:done"

TEXT = Environment(autoescape=False).from_string(
    "Hello {{ first_name or 'there' }},\n\n{{ words }}\n\nUnsubscribe: https://mail.kcla.example/u/{{ number }}\n"
)
PAGE = Environment(autoescape=True).from_string(
    "<html><body><p>Hello {{ first_name or 'there' }},</p>{% for one in words.split() %}<span>{{ one }} </span>"
    "{% endfor %}<a href='https://mail.kcla.example/u/{{ number }}'>Unsubscribe</a></body></html>"
)
WORDS = "The seven benefits in a few words, as long as the text of a real email is. " * 60
_client = sendgrid.SendGridAPIClient(
    "SG.sandbox", host=os.environ.get("DRIPWELL_PROVIDER_URL", "http://127.0.0.1:8025")
)
_count = Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1"))


@app.task(name="plain.mail")  # type: ignore[untyped-decorator]
def mail(number: int) -> None:
    """Mail one person."""
    facts = {"first_name": "Maria", "words": WORDS, "number": number}
    message = Mail(
        from_email=Email("hello@mail.kcla.example", "KCLA"),
        to_emails=To(f"somebody.{number}@example.com"),
        subject="How it works, part 1",
        plain_text_content=Content("text/plain", TEXT.render(facts)),
        html_content=Content("text/html", PAGE.render(facts)),
    )
    _client.send(message)
    _count.incr(DONE)


def mail_many(emails: int) -> float:
    """Queue them all, then wait until all are done; returns the seconds."""
    _count.delete(DONE)
    began = time.perf_counter()
    for number in range(emails):
        mail.apply_async((number,), countdown=0.1)
    while int(_count.get(DONE) or 0) < emails:
        if time.perf_counter() > began + 300:
            raise SystemExit("the plain design did not get through")
        time.sleep(0.01)
    return time.perf_counter() - began


def main() -> None:
    """The first ones find a worker that starts, and templates that nobody has compiled: they do not count."""
    mail_many(20)
    print(mail_many(int(sys.argv[1])))


if __name__ == "__main__":
    main()
