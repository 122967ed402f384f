"""Judges over real HTTP: a small server of the test's own answers as an OpenAI-compatible one does, or fails to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from engine.runtime.base import Runtime
from finetune.bench.judge import HttpJudge, JudgeError, ask
from finetune.bench.registry import benchmark
from finetune.bench.report import write_report
from finetune.bench.run import Plan, run
from finetune.bench.scorers import Prediction
from finetune.errors import FinetuneError
from tests.bench import made_up

Answer = Callable[[dict[str, Any]], str | int | bytes]
"""What the server says to a request: a text, an HTTP error code, or raw bytes."""


class Server:
    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.answer: Answer = lambda request: "回答正确"
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                self._send(200, json.dumps({"data": [{"id": "the-judge"}]}).encode())

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.heard.append(request)
                server.keys.append(self.headers.get("Authorization"))
                said = server.answer(request)
                if isinstance(said, int):
                    self._send(said, b"{}")
                elif isinstance(said, bytes):
                    self._send(200, said)
                else:
                    reply = {"choices": [{"message": {"role": "assistant", "content": said}}]}
                    self._send(200, json.dumps(reply).encode())

            def _send(self, code: int, body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def at(server: Server) -> HttpJudge:
    """The judge there, without pauses."""
    return replace(HttpJudge.at(server.url), pause=0.0)


def one(output: str, answer: str = "是", question: str = "？") -> Prediction:
    return Prediction("SPU", "1", question, answer, output)


def test_the_request_is_what_the_protocol_wants(server: Server) -> None:
    judge = HttpJudge.at(server.url + "/", key="secret")
    assert judge.name == "the-judge"
    assert ask(judge, "verdict", one("<think>…</think>{}", answer="{'a': 1}")).reply == "回答正确"
    (request,) = server.heard
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("the-judge", 0.0, 128)
    (message,) = request["messages"]
    assert message["role"] == "user" and "{'a': 1}" in message["content"] and "<think>" not in message["content"]
    assert server.keys == ["Bearer secret"]


def test_yes_no_is_asked_only_where_unclear_and_up_to_five_times(server: Server) -> None:
    judge = at(server)
    assert ask(judge, "yes_no", one("是")).reply is None and server.heard == []
    replies = iter(["不好说", "Unknown", "否"])
    server.answer = lambda request: next(replies)
    assert ask(judge, "yes_no", one("否。")).reply == "否"
    assert [r["temperature"] for r in server.heard] == [0.0, 0.5, 1.0]
    server.heard.clear()
    server.answer = lambda request: "不好说"
    assert ask(judge, "yes_no", one("嗯")).reply == "不好说"  # the last one, for the report
    assert [r["temperature"] for r in server.heard] == [0.0, 0.5, 1.0, 1.5, 2.0]


def test_long_questions_and_answers_are_cut_as_published(server: Server) -> None:
    judge = at(server)
    server.answer = lambda request: "是"
    ask(judge, "yes_no", one("甲" + "乙" * 9000, question="头" + "中" * 12_000 + "尾"))
    text = server.heard[0]["messages"][0]["content"]
    assert "头" in text and "尾" in text and text.count("中") == 8192 - 2
    assert "甲" not in text and text.count("乙") == 8192


@pytest.mark.parametrize(
    "broken",
    [500, 404, b"no json", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}', ""],
)
def test_every_failure_is_tried_again_and_then_named(server: Server, broken: str | int | bytes) -> None:
    judge = at(server)
    server.answer = lambda request: broken
    judged = ask(judge, "verdict", one("x"))
    assert judged.reply == "" and "judge" in judged.error and len(server.heard) == 5
    server.heard.clear()
    server.answer = lambda request: broken if len(server.heard) < 3 else "回答错误"
    assert ask(judge, "verdict", one("x")).reply == "回答错误" and len(server.heard) == 3


def test_nobody_there() -> None:
    judge = HttpJudge("http://127.0.0.1:9/v1", "x", pause=0.0)
    with pytest.raises(JudgeError):
        judge.reply("?", 0, 1)
    assert ask(judge, "list", one("x")).error
    for address in ("http://127.0.0.1:9/v1", "ftp://x/v1", "file:///etc/passwd", "nonsense", ""):
        with pytest.raises(FinetuneError):
            HttpJudge.at(address)


def test_a_judged_run(tmp_path: Path, server: Server, nano: Runtime) -> None:
    """The judge's words decide; its failures and its nonsense are in the report; one that failed is asked again."""
    data, out = made_up.kc_mmbench(tmp_path / "data", each=2), tmp_path / "out"
    plan = Plan(benchmark("kc-mmbench"), data, max_tokens=2)

    def first(request: dict[str, Any]) -> str | int:
        text = request["messages"][0]["content"]
        if "改写成一个列表" in text:
            return "第一[否]，最后[是，是，否]"
        if "判断题" in text:
            return "说不清"
        return 503 if "视频2, 视频1, 视频3" in text else "不能说回答正确"

    server.answer = first
    judge = at(server)
    assert run(plan, nano, out, judge=judge)
    facts = write_report(plan, nano.info(), out)
    tasks = facts["tasks"]
    assert tasks["Hot_Videos_Aggregation"]["published"]["percent"] == 100.0
    assert tasks["Hot_Videos_Aggregation"]["comparable"]
    assert tasks["CPV"]["published"]["percent"] == 100.0 and tasks["CPV"]["strict"]["percent"] == 0.0
    assert tasks["Collection_Order"]["published"]["percent"] == 0.0
    assert tasks["Collection_Order"]["strict"]["items"] == 0  # a judge that failed says nothing strictly
    problems = {(p["task"], p["problem"]): p["items"] for p in facts["problems"]}
    assert problems["CPV", "the judge's reply is no verdict"] == 2
    assert problems["Collection_Order", "the judge failed"] == 2
    assert facts["unscored"] == 2

    server.heard.clear()
    server.answer = lambda request: "回答正确"
    outputs = [json.loads(line)["output"] for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert run(plan, nano, out, judge=judge)  # only what failed is asked again, and the model not at all
    assert len(server.heard) == 2
    again = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert len(again) == len(outputs) + 2
    facts = write_report(plan, nano.info(), out)
    assert facts["tasks"]["Collection_Order"]["strict"]["percent"] == 100.0 and facts["unscored"] == 0
    assert facts["settings"]["judge"] == "the-judge"
    with pytest.raises(FinetuneError, match="judged by the-judge"):
        run(plan, nano, out)


def test_a_judge_may_come_after_the_answers(tmp_path: Path, server: Server, nano: Runtime) -> None:
    data, out = made_up.kc_mmbench(tmp_path / "data", each=1), tmp_path / "out"
    plan = Plan(benchmark("kc-mmbench"), data, max_tokens=2)
    assert run(plan, nano, out)
    assert not write_report(plan, nano.info(), out)["tasks"]["CPV"]["comparable"]
    before = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert run(plan, nano, out, judge=at(server))
    facts = write_report(plan, nano.info(), out)
    assert facts["tasks"]["CPV"]["comparable"] and facts["tasks"]["CPV"]["published"]["percent"] == 100.0
    after = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()][len(before) :]
    known = {(row["task"], row["index"]): row["output"] for row in before}
    assert all(row["output"] == known[row["task"], row["index"]] for row in after)  # the model was not asked again
