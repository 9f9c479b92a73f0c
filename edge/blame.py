"""A connection is of no more use: who is to blame for that, and who is asked again.

Behind a gateway several units share a connection, so what one of them does to it happens to all who wait. Whoever is
known to have done it fails: the answer named its transaction, or it was the only one that anything could come of. Where
several may have done it nobody fails: each is asked again alone, and the one that does it again is known then.

Invariant: no request is asked again more than SUSPECTED times because of a doubt; and each time that one is asked again
without a doubt, another one failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edge.asking import GONE
from edge.waiting import Entry, Sent

SUSPECTED: Final = 2
"""A request that so many connections were lost with fails, whether or not others might have done it."""
SPOILING: Final = frozenset({"reset", "unusable", "unit", "function", "length"})
"""Outcomes of requests that cost the connection."""


def blame(sent: Sequence[Sent], culprit: Sent | None, *, late: bool) -> tuple[list[Sent], list[Entry]]:
    """Of those that wait for an answer: who fails, and who is asked again, in the order in which they were asked.

    `culprit`: who is known to have done it; it need not be among them. `late`: something may still have come of a
    request whose time was over, so that not even the only one is known to have done it.
    """
    if culprit is None and len(sent) == 1 and not late:
        culprit = sent[0]
    guilty, again = [], []
    for one in sent:
        if one is culprit or (culprit is None and one.suspicion >= SUSPECTED):
            guilty.append(one)
        elif one.asker is not GONE:
            again.append((one.asker, one.query, one.timeout_s, one.suspicion + (culprit is None)))
    return guilty, again
