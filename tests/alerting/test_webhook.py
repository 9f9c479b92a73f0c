from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pydantic import SecretStr

from alerting.delivery import RETRY_MOST_S, Relevance, relevance, retry_in_s
from alerting.notices import Notice
from alerting.payload import content
from alerting.webhook import Answer, Target, client, post, sign, target
from telemetry.errors import ConfigError
from telemetry.settings import Settings
from tests.fixtures.receiver import Receiver


async def attempt(receiver: Receiver, *, signed: bool = True, answer_s: float = 5.0) -> tuple[Answer, str]:
    to = Target(receiver.url, "k" if signed else None)
    async with client(to) as http:
        made = await post(http, to, notice_id=7, body=b'{"a":1}', at_s=1_790_000_000, answer_s=answer_s)
    return made.answer, made.text


async def test_a_post_is_signed_over_time_and_body_and_says_which_notice_it_is(receiver: Receiver) -> None:
    assert await attempt(receiver) == (Answer.TAKEN, "")
    (got,) = receiver.received
    expected = hmac.new(b"k", b'1790000000.{"a":1}', hashlib.sha256).hexdigest()
    assert got.headers["X-Vigil-Signature"] == f"t=1790000000,v1={expected}"
    assert got.headers["Idempotency-Key"] == "7"
    assert (got.headers["Content-Type"], got.body) == ("application/json", b'{"a":1}')


async def test_without_a_secret_nothing_is_signed(receiver: Receiver) -> None:
    await attempt(receiver, signed=False)
    assert "X-Vigil-Signature" not in receiver.received[0].headers


@pytest.mark.parametrize(
    ("rule", "status", "answer", "text"),
    [
        ("any 2xx is taken", 202, Answer.TAKEN, ""),
        ("a redirect is not followed", 307, Answer.FAILED, "answered 307: redirects are not followed"),
        ("a moved receiver may come back", 404, Answer.FAILED, "answered 404"),
        ("a receiver that is busy may take it later", 429, Answer.FAILED, "answered 429"),
        ("a receiver in trouble may take it later", 500, Answer.FAILED, "answered 500"),
        ("a receiver may refuse this one notice", 422, Answer.REFUSED, "answered 422"),
        ("a receiver that hangs up may come back", -1, Answer.UNREACHABLE, "RemoteProtocolError"),
    ],
)
async def test_the_answer_decides(receiver: Receiver, rule: str, status: int, answer: Answer, text: str) -> None:
    receiver.answer = lambda _: status
    assert await attempt(receiver) == (answer, text), rule
    assert len(receiver.received) == 1, rule


async def test_a_receiver_that_never_answers_is_given_up(receiver: Receiver) -> None:
    receiver.answer = lambda _: None
    assert await attempt(receiver, answer_s=0.2) == (Answer.UNREACHABLE, "no answer within 0.2 s")


async def test_a_receiver_that_is_not_there_is_unreachable(receiver: Receiver) -> None:
    receiver.stop()
    assert await attempt(receiver) == (Answer.UNREACHABLE, "ConnectError")


@pytest.mark.parametrize(
    ("rule", "url", "secret", "keys"),
    [
        ("not in the clear over the network", "http://example.com/x", "s", ["VIGIL_WEBHOOK_URL"]),
        ("not unsigned over the network", "https://example.com/x", None, ["VIGIL_WEBHOOK_SECRET_FILE"]),
        ("only the web", "ftp://127.0.0.1/x", "s", ["VIGIL_WEBHOOK_URL"]),
        ("a host is needed", "https:///x", "s", ["VIGIL_WEBHOOK_URL"]),
        ("a port is a number", "https://example.com:x/", "s", ["VIGIL_WEBHOOK_URL"]),
        ("every fault at once", "http://example.com/tok3n", None, ["VIGIL_WEBHOOK_URL", "VIGIL_WEBHOOK_SECRET_FILE"]),
    ],
)
def test_a_webhook_that_is_not_safe_is_refused(rule: str, url: str, secret: str | None, keys: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        target(Settings(webhook_url=url, webhook_secret=SecretStr(secret) if secret else None))
    assert [f.key for f in error.value.faults] == keys, rule
    assert "tok3n" not in str(error.value)


def test_a_secret_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="webhook-secret"):
        target(Settings(webhook_url="https://example.com/", webhook_secret_file=tmp_path / "webhook-secret"))


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "http://localhost/x", "http://[::1]:9/x"])
def test_loopback_needs_neither_tls_nor_a_secret(url: str) -> None:
    assert target(Settings(webhook_url=url)) == Target(url, None)


def test_no_webhook_is_no_fault() -> None:
    assert target(Settings()) is None


def test_a_target_shows_neither_token_nor_secret() -> None:
    assert Target("https://user:pass@example.com/hook?token=s3cret", "k").shown == "https://example.com"


def test_the_receivers_check_of_the_documentation_accepts_ours_and_nothing_else() -> None:
    page = (Path(__file__).parents[2] / "docs" / "alerting.md").read_text(encoding="utf-8")
    snippet = re.search(r"```python\n(.*?)```", page, re.S)
    assert snippet
    scope: dict[str, Any] = {}
    exec(snippet[1], scope)  # noqa: S102 - our own documentation is what is tested
    genuine = scope["genuine"]
    header = sign(b"body", secret="k", at_s=1000)
    assert genuine(header, b"body", "k", now_s=1010)
    assert not genuine(header, b"other", "k", now_s=1010)
    assert not genuine(header, b"body", "other", now_s=1010)
    assert not genuine(header, b"body", "k", now_s=2000), "a replayed notice is too old"
    assert not genuine("", b"body", "k", now_s=1010)
    assert not genuine("t=x,v1=y", b"body", "k", now_s=1010)


def notice(transition: str) -> Notice:
    body = {"at": "2026-01-01T00:00:00Z", "by": "analytics", "note": "", "reason": "raised", "state": "unacknowledged"}
    return Notice(1, "a", transition, 1, body, None)


@pytest.mark.parametrize(
    ("rule", "transition", "late", "state", "expected"),
    [
        ("a raise is told even when it is over", "raise", False, "normal", Relevance.DUE),
        ("a late raise is told while it is active", "raise", True, "unacknowledged", Relevance.DUE),
        ("a late raise is told while it is active", "raise", True, "acknowledged", Relevance.DUE),
        (
            "a late raise is not told when it is over",
            "raise",
            True,
            "returned_unacknowledged",
            Relevance.RETURNED_SINCE,
        ),
        ("a repeat is told while nobody acknowledged", "repeat", False, "unacknowledged", Relevance.DUE),
        ("a repeat ends with the acknowledgement", "repeat", False, "acknowledged", Relevance.ACKNOWLEDGED_SINCE),
        ("a repeat ends with the return", "repeat", False, "returned_unacknowledged", Relevance.RETURNED_SINCE),
        ("an end is always told", "clear", True, "normal", Relevance.DUE),
    ],
)
def test_what_no_longer_holds_is_not_told(
    rule: str, transition: str, late: bool, state: str, expected: Relevance
) -> None:
    assert relevance(notice(transition), {"late": late, "state": state}) is expected, rule


def test_retries_wait_longer_and_longer_up_to_a_bound_never_all_at_once() -> None:
    waits = [[retry_in_s(n, Random(seed)) for n in range(1, 40)] for seed in range(20)]
    assert all(0.5 <= w[0] <= 1.0 for w in waits)
    assert all(RETRY_MOST_S / 2 <= w[-1] <= RETRY_MOST_S for w in waits)
    assert len({w[5] for w in waits}) == 20


ROW: dict[str, Any] = {
    "id": "a",
    "equipment": "lift-1",
    "equipment_zh": "一号梯",
    "equipment_en": "Lift one",
    "address": "1 Main Street",
    "class": "elevator",
    "point": "",
    "detector": "condition:entrapment",
    "state": "unacknowledged",
    "priority": "critical",
    **{f"{f}_{lang}": f"{f} {lang}" for f in ("text", "consequence", "action") for lang in ("zh", "en")},
    **dict.fromkeys(("onset", "raised_at", "acknowledged_at", "cleared_at", "acknowledged_by", "acknowledge_note")),
    "late": False,
    "evidence": {"value": 1.0},
    "area": "xz",
    "area_zh": "莘庄",
    "area_en": "Xinzhuang",
    **{f"{r}{s}": None for r in ("owner", "user") for s in ("", "_zh", "_en", "_phone")},
    "maintainer": "care",
    "maintainer_zh": "维保",
    "maintainer_en": "Care",
    "maintainer_phone": "021-1",
}


def test_a_notice_says_what_where_and_whom_to_call_in_both_languages() -> None:
    said = content(notice("raise"), ROW)
    assert said["summary"] == {"zh": "报警：一号梯：text zh", "en": "Alarm: Lift one: text en"}
    assert said["equipment"] == {
        "id": "lift-1",
        "name": {"zh": "一号梯", "en": "Lift one"},
        "class": "elevator",
        "address": "1 Main Street",
        "area": {"id": "xz", "name": {"zh": "莘庄", "en": "Xinzhuang"}},
    }
    assert said["parties"] == {
        "owner": None,
        "user": None,
        "maintainer": {"id": "care", "name": {"zh": "维保", "en": "Care"}, "phone": "021-1"},
    }
    assert said["alarm"]["action"] == {"zh": "action zh", "en": "action en"}


def test_an_equipment_without_a_name_is_called_by_its_id() -> None:
    said = content(notice("clear"), {**ROW, "equipment_zh": None, "equipment_en": None, "address": None})
    assert said["summary"]["en"] == "Back to normal: lift-1: text en"
