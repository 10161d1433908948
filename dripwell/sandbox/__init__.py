"""A SendGrid to run at home: the same HTTP API, an inbox to look at, signed webhooks, faults on demand.

A separate program that talks only HTTP with the rest and shares no code with `dripwell.delivery`:

    python -m dripwell.sandbox --port 8025 --state DIR [--webhook URL] [--seed N] [--key SG.test]

What happens to a mail can be written into its address, as tags after a `+` in the local part. Tags can be
combined (`sam+late+complain@example.com`); a tag that is not in this table means nothing.

tag                what it does
-----------------  ------------------------------------------------------------------------------------------------
+bounce            bounces hard (550 5.1.1, Invalid Address); later mails are dropped: the address is on a list
+bounce-at-K       the K-th mail to this address bounces hard; earlier ones are delivered
+softbounce        deferred, then blocked (452 4.2.2, Mailbox Unavailable)
+defer             deferred, delivered a second later
+dropped           the provider drops it itself (Bounced Address)
+invalid           the provider drops it as no address at all (Invalid)
+asyncbounce       delivered, then a bounce without custom args and without `sg_message_id` (rules 2.5)
+complain          delivered, then reported as spam
+unsubscribe       delivered, then the provider's own unsubscribe event
+late              every event but `processed` comes some seconds late (`Config.late`)
+lostevents        no event reaches the webhook; the log knows them
+doubledevents     every event reaches the webhook twice, the second time under a new `sg_event_id`
+badrow            400 for the whole call, naming this personalization; always
+badcall           400 for the whole call without a word about which personalization; always
+slow              the whole call is answered after 2 s
+ratelimit         429 with Retry-After for the first call that holds this address, then fine
+500before         500 without accepting, the first time
+500after          accepted, then answered 500, the first time
+hangup            accepted, then the connection is closed without an answer, the first time

When several tags want the answer of one call, the first of badrow, badcall, ratelimit, 500before, hangup, 500after
wins and only its first time is used up. "The first time" survives a restart.

Everything else is steered over `/control/*` by clients on the same machine: see docs/reference/sandbox.md.
"""

from dripwell.sandbox.config import Config

__all__ = ["Config"]
