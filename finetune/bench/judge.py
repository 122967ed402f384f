"""A judge behind an OpenAI-compatible address, asked as KC-MMBench's harness asks its own (KC-MMBENCH.md §4 to §6).

The instructions are our own words; a judge model other than the published one gives other scores."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from engine.reasoning.final_answer import final_answer
from finetune.bench import answers
from finetune.bench.answers import UNKNOWN
from finetune.bench.scorers import Prediction
from finetune.errors import FinetuneError

TRIES = 5
_TIMEOUT = 120.0  # seconds for one reply
_LARGEST = 1 << 20  # bytes of one reply

_YES_NO = (
    "下面给出一个判断题和一段模型回答。请判断回答的结论是“是”还是“否”，只输出一个词：是、否，"
    "或者在结论不明确时输出 Unknown。\n问题：{question}\n回答：{prediction}\n输出："
)
_LIST = (
    "下面是模型对一组视频逐个判断的回答。请把其中的结论按顺序改写成一个列表，格式为 [是，否，是]，"
    "每个视频一项，不要输出其他内容。\n回答：{prediction}\n输出："
)
_VERDICT = (
    "下面给出标准答案和模型回答。请忽略回答中的分析过程，只比较结论是否与标准答案一致。"
    "一致时只输出“回答正确”，不一致时只输出“回答错误”。\n标准答案：{answer}\n模型回答：{prediction}\n输出："
)


class JudgeError(Exception):
    """The judge gave no reply: one sentence that says why."""


class Judge(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def pause(self) -> float:
        """Seconds to wait after a failure, longer each time."""
        ...

    def reply(self, prompt: str, temperature: float, max_tokens: int) -> str:
        """What the judge says. Raises JudgeError where it says nothing."""
        ...


@dataclass(frozen=True)
class HttpJudge:
    """`url` is the base of the API, such as http://127.0.0.1:8000/v1."""

    url: str
    name: str  # the model's name there
    key: str = ""
    pause: float = 1.0

    @classmethod
    def at(cls, url: str, model: str | None = None, key: str = "") -> HttpJudge:
        """The judge at this address; without a model name the first one that the server lists.

        Raises FinetuneError for an address that cannot be used or a server that does not answer."""
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise FinetuneError(f"The judge's address {url} is none; give one such as http://127.0.0.1:8000/v1.")
        url = url.rstrip("/")
        if model is None:
            try:
                listed = _fetch(urllib.request.Request(f"{url}/models", headers=_headers(key)))
                model = listed["data"][0]["id"]
            except (JudgeError, LookupError, TypeError) as error:
                raise FinetuneError(
                    f"The judge at {url} does not list its models ({error}); check the address or name one with "
                    "--judge-model."
                ) from error
        return cls(url, str(model), key)

    def reply(self, prompt: str, temperature: float, max_tokens: int) -> str:
        body = {
            "model": self.name,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": temperature,
            "max_tokens": max_tokens,
        }
        request = urllib.request.Request(
            f"{self.url}/chat/completions", json.dumps(body).encode(), _headers(self.key), method="POST"
        )
        try:
            text = _fetch(request)["choices"][0]["message"]["content"]
        except (LookupError, TypeError) as error:
            raise JudgeError("the judge's reply has no text") from error
        if not isinstance(text, str) or not text.strip():
            raise JudgeError("the judge's reply is empty")
        return text


def _headers(key: str) -> dict[str, str]:
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})


def _fetch(request: urllib.request.Request) -> Any:
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            return json.loads(response.read(_LARGEST))
    except urllib.error.HTTPError as error:
        raise JudgeError(f"the judge answers with HTTP {error.code}") from error
    except (OSError, ValueError) as error:  # no connection, a broken one, no JSON
        raise JudgeError(f"the judge cannot be understood or reached ({type(error).__name__})") from error


@dataclass(frozen=True)
class Judged:
    """`reply` is None where nothing had to be asked. `error` says why there is no reply."""

    reply: str | None
    error: str = ""


def ask(judge: Judge, kind: str, p: Prediction) -> Judged:
    """What a judge says about one prediction; `kind` as in tasks.Task.judged. Never raises for a judge that fails."""
    said = final_answer(p.output)
    if kind == "yes_no":
        if answers.yes_no(said) != UNKNOWN:
            return Judged(None)
        prompt = _YES_NO.format(question=_middle_out(p.question), prediction=said[-8192:])
        return _tries(judge, prompt, 128, lambda reply: answers.yes_no(reply) != UNKNOWN)
    template = _LIST if kind == "list" else _VERDICT
    prompt = template.format(answer=p.answer, prediction=said)
    return _tries(judge, prompt, 128, lambda reply: True)


def _middle_out(question: str) -> str:
    return question if len(question) <= 10_240 else question[:4096] + question[-4096:]


def _tries(judge: Judge, prompt: str, max_tokens: int, good: Any) -> Judged:
    """At most five tries, each half a degree warmer (§4 c, §5); the last reply where none is good."""
    last = Judged("", "the judge was not asked")
    for number in range(TRIES):
        try:
            last = Judged(judge.reply(prompt, 0.5 * number, max_tokens))
        except JudgeError as error:
            last = Judged(last.reply or "", str(error))
            if number < TRIES - 1:
                time.sleep(judge.pause * 2**number)
            continue
        if good(last.reply):
            return last
    return last if last.reply else Judged("", last.error)
