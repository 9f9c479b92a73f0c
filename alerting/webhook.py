"""The webhook: where notices are posted, signed so that the receiver can tell ours from anybody's.

Signature (docs/alerting.md has a receiver's check): `X-Vigil-Signature: t=UNIX,v1=HEX`, where HEX is HMAC-SHA256 under
the shared secret of `UNIX` + "." + body. `Idempotency-Key` is the notice's id: the same for every attempt.

Invariant: nothing is sent in the clear beyond this machine, no redirect is followed, every wait has an end, and neither
the URL (it may hold a token) nor the secret is ever in an error or a log line.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

import httpx

from telemetry.errors import ConfigError, Fault
from telemetry.settings import Settings, is_loopback

CHANNEL: Final = "webhook"
SIGNATURE: Final = "X-Vigil-Signature"
CONNECT_S: Final = 3.0
ANSWER_S: Final = 10.0
"""From the first byte out to the status line in."""
REFUSING: Final = frozenset({400, 413, 415, 422})
"""Answers that are about this notice and not about the receiver's state: asking again will not help for ever."""


class Answer(StrEnum):
    """What became of an attempt."""

    TAKEN = "taken"
    REFUSED = "refused"
    """The receiver understood, and does not want this notice."""
    FAILED = "failed"
    """The receiver answered with something else: it may take it later."""
    UNREACHABLE = "unreachable"
    """No answer at all."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The end of an attempt, with a text for the log and the notice's row."""

    answer: Answer
    text: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A webhook that may be used."""

    url: str
    secret: str | None

    @property
    def shown(self) -> str:
        """Where it goes, without what may be secret."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}"


def target(settings: Settings) -> Target | None:
    """The webhook of the settings, or None. Raises ConfigError with every fault."""
    if settings.webhook_url is None:
        return None
    try:
        parts, secret = urlsplit(settings.webhook_url), settings.secret("webhook_secret")
        host, _ = parts.hostname or "", parts.port
    except (ValueError, OSError) as error:
        raise ConfigError(
            [Fault("settings", 0, "VIGIL_WEBHOOK_URL", "a URL and a readable secret", str(error))]
        ) from None
    near = is_loopback(host)
    faults = []
    if not host or parts.scheme not in ("http", "https") or (parts.scheme == "http" and not near):
        found = f"{parts.scheme or 'no scheme'}://{host}"
        faults.append(Fault("settings", 0, "VIGIL_WEBHOOK_URL", "https://… (http:// on loopback only)", found))
    if not secret and not near:
        faults.append(Fault("settings", 0, "VIGIL_WEBHOOK_SECRET_FILE", "a secret, to sign with", "none"))
    if faults:
        raise ConfigError(faults)
    return Target(settings.webhook_url, secret or None)


def sign(body: bytes, *, secret: str, at_s: int) -> str:
    """The value of the signature header."""
    digest = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"


def client(to: Target) -> httpx.AsyncClient:
    """A client with bounds. Proxies of the environment count for what is not on this machine."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
        limits=httpx.Limits(max_connections=16, max_keepalive_connections=4),
        follow_redirects=False,
        trust_env=not is_loopback(urlsplit(to.url).hostname or ""),
        headers={"User-Agent": "vigil-alerting/1", "Content-Type": "application/json"},
    )


async def post(
    http: httpx.AsyncClient, to: Target, *, notice_id: int, body: bytes, at_s: int, answer_s: float = ANSWER_S
) -> Attempt:
    """One attempt. Never raises for what the receiver does; the answer's body is not read."""
    headers = {"Idempotency-Key": str(notice_id)}
    if to.secret is not None:
        headers[SIGNATURE] = sign(body, secret=to.secret, at_s=at_s)
    try:
        async with asyncio.timeout(answer_s), http.stream("POST", to.url, content=body, headers=headers) as response:
            return _judged(response.status_code)
    except TimeoutError:
        return Attempt(Answer.UNREACHABLE, f"no answer within {answer_s:g} s")
    except httpx.RequestError as error:
        return Attempt(Answer.UNREACHABLE, type(error).__name__)
    except httpx.InvalidURL:
        return Attempt(Answer.FAILED, "the URL is not valid")


def _judged(status: int) -> Attempt:
    if 200 <= status < 300:
        return Attempt(Answer.TAKEN)
    if status in REFUSING:
        return Attempt(Answer.REFUSED, f"answered {status}")
    if 300 <= status < 400:
        return Attempt(Answer.FAILED, f"answered {status}: redirects are not followed")
    return Attempt(Answer.FAILED, f"answered {status}")
