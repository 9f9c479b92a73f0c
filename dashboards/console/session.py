"""Log-in by token: `Authorization: Bearer TOKEN`, or a cookie that the token was exchanged for.

The cookie holds an expiry and its HMAC under the token, never the token; changing the token ends every session. It is
HttpOnly and SameSite=Strict, so neither a script nor another site can use it. Wrong tokens are answered ever more slowly.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from telemetry.clock import US_PER_S, Clock

COOKIE: Final = "vigil_session"
LASTS_S: Final = 12 * 3600
TRIES: Final = 10
TRIES_WITHIN_S: Final = 60.0


@dataclass(slots=True)
class Sessions:
    """Who may in. Without a token everybody may: the console then listens on loopback only."""

    token: str | None
    clock: Clock
    _failed_at_s: deque[float] = field(default_factory=deque)

    @property
    def needed(self) -> bool:
        """Whether a log-in is needed."""
        return self.token is not None

    def bearer(self, headers: Mapping[str, str]) -> bool:
        """Whether the request carries the token itself."""
        return self.token is not None and _same(headers.get("authorization", ""), f"Bearer {self.token}")

    def authorised(self, headers: Mapping[str, str], cookies: Mapping[str, str]) -> bool:
        """Whether a request may see anything."""
        return self.token is None or self.bearer(headers) or self._valid(cookies.get(COOKIE, ""))

    def blocked(self) -> bool:
        """Whether too many wrong tokens came lately, from whomever."""
        now = self.clock.monotonic_s()
        while self._failed_at_s and self._failed_at_s[0] < now - TRIES_WITHIN_S:
            self._failed_at_s.popleft()
        return len(self._failed_at_s) >= TRIES

    def exchange(self, token: str) -> str | None:
        """The cookie's value for the right token; None for a wrong one."""
        if self.token is None or not _same(token, self.token):
            self._failed_at_s.append(self.clock.monotonic_s())
            return None
        expiry = str(self.clock.now_us() // US_PER_S + LASTS_S)
        return f"{expiry}.{self._mac(expiry)}"

    def _valid(self, cookie: str) -> bool:
        expiry, _, mac = cookie.partition(".")
        if not (expiry.isascii() and expiry.isdecimal() and _same(mac, self._mac(expiry))):
            return False
        return int(expiry) > self.clock.now_us() // US_PER_S

    def _mac(self, expiry: str) -> str:
        key = (self.token or "").encode()
        return hmac.new(key, f"vigil console session {expiry}".encode(), hashlib.sha256).hexdigest()


def _same(found: str, expected: str) -> bool:
    return hmac.compare_digest(found.encode(), expected.encode())
