"""Rows of pairs and of questions: what is read, what is refused and named, and that a clip is seen once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.keye import KeyeForConditionalGeneration
from finetune.data.collate import collate, collate_shared, learnt_log_probs, read
from finetune.data.conversations import Conversations
from finetune.data.jsonl import load_rows, read_jsonl
from finetune.data.rows import parse_row
from finetune.errors import FinetuneError
from finetune.training.losses import IGNORE
from tests.data.talks import talk


def pair(question: str, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    return talk(question, chosen=chosen, rejected=rejected, **more)


def test_bad_rows_are_counted_and_named(write: Callable[..., Path], conversations: Conversations) -> None:
    path = write(
        pair("A?", "Yes.", "No."),
        pair("A?", "Yes.", " Yes. "),
        pair("A?", "", "No."),
        talk("A?", chosen="Yes."),
        talk("A?", "Yes.", chosen="Yes.", rejected="No."),
        pair("A?", "Yes.<|im_end|>", "No."),
        pair("<video>A?", "Yes.", "No.", videos=["gone.mp4"]),
    )
    rows, problems = read_jsonl([path], conversations.length, use="pair")
    assert len(rows) == 1 and rows[0].chosen == "Yes." and rows[0].rejected == "No."
    assert problems.counts == {
        "has two answers that are the same": 1,
        "has an empty question or answer": 1,
        "has no chosen and rejected answer": 1,
        "has its roles out of order": 1,
        "has control tokens in an answer": 1,
        "names a file that is missing": 1,
    }
    assert problems.examples["has two answers that are the same"] == [("data.jsonl line 2", "Yes.")]
    with pytest.raises(FinetuneError, match=r"2 rows, each has two answers that are the same: all.jsonl line 1 \(Yes."):
        read_jsonl([write(*[pair("A?", "Yes.", "Yes.")] * 2, name="all.jsonl")], conversations.length, use="pair")


def test_questions_name_their_reward_or_show_it(write: Callable[..., Path], conversations: Conversations) -> None:
    path = write(
        talk("How many?", reference="3"),
        talk("Which?", reference="B", reward="exact"),
        talk("Which?", reference=" "),
        talk("Which?", reference="B", reward="taste"),
        talk("Where?", reference="there", reward="box"),
    )
    rows, problems = read_jsonl([path], conversations.length, use="question")
    assert [(row.reference, row.reward) for row in rows] == [("3", "number"), ("B", "exact")]
    assert problems.counts == {
        "has no reference answer": 1,
        "has a reward that is unknown": 1,
        "has a reference that its reward cannot read": 1,
    }


def test_what_was_checked_is_remembered_by_its_use(
    write: Callable[..., Path], conversations: Conversations, tmp_path: Path
) -> None:
    row = pair("How many?", "3", "4", reference="3")
    path = write(row, row)
    for use in ("pair", "question", "pair"):
        rows, _ = load_rows([path], conversations.length, tmp_path / "cache", "x", use=use)  # type: ignore[arg-type]
        assert rows[1].use == use
    with pytest.raises(FinetuneError, match="roles out of order"):
        load_rows([path], conversations.length, tmp_path / "cache", "x")


ROWS = [
    pair("<video>What colour is the heart?", "Orange.", "It is a blue one.", videos=["a.mp4"]),
    pair("Hello", "Hello.", "No.", mode="no_think"),
    pair("<image><video>Two", "Both.", "None", images=["q.jpg"], videos=[{"path": "b.mp4", "end": 2}]),
]


def test_a_pair_is_two_conversations_with_the_same_prompt(conversations: Conversations, folder: Path) -> None:
    for data in ROWS:
        row = parse_row(data, folder, "x", "pair")
        decode = conversations.processor.tokenizer.decode
        for example, answer in zip(conversations.pair(row), (row.chosen, row.rejected), strict=True):
            learnt = example.labels[example.labels != IGNORE]
            assert decode(learnt, skip_special_tokens=False) == f"{answer}<|im_end|>"
            # the same ids and positions as the whole conversation in one piece, by the path of SFT
            turns = [*data["messages"], {"role": "assistant", "content": answer}]
            whole = conversations.example(parse_row({**data, "messages": turns}, folder, "x"))
            assert torch.equal(example.input_ids, whole.input_ids)
            assert torch.equal(example.position_ids, whole.position_ids)
            assert torch.equal(example.labels, whole.labels)
        assert conversations.length(row) == sum(len(e.input_ids) for e in conversations.pair(row))


def test_what_both_see_goes_through_the_tower_once(
    model: KeyeForConditionalGeneration, conversations: Conversations, folder: Path
) -> None:
    pairs = [conversations.pair(parse_row(data, folder, "x", "pair")) for data in ROWS]
    shared, apart = collate_shared(pairs), collate([example for both in pairs for example in both])
    patches: list[int] = []
    hook = model.visual.register_forward_hook(lambda module, args, out: patches.append(len(args[0])))
    try:
        with torch.no_grad():
            one, other = read(model, shared), read(model, apart)
            found, which = learnt_log_probs(model, shared)
    finally:
        hook.remove()
    assert len(patches) == 3 and patches[1] == 2 * patches[0] == 2 * patches[2]
    assert float((one - other).abs().max()) <= 1e-5 * float(other.abs().max())
    assert which.tolist() == [i for i, e in enumerate(e for both in pairs for e in both) for _ in range(e.learnt)]
    logits = model.lm_head(other)[0, :-1].log_softmax(-1)
    targets = apart.labels[0, 1:]
    kept = targets != IGNORE
    torch.testing.assert_close(found, logits[kept].gather(1, targets[kept][:, None])[:, 0], atol=1e-4, rtol=1e-4)


def test_gradients_of_what_is_shared_are_those_of_both(
    model: KeyeForConditionalGeneration, conversations: Conversations, folder: Path
) -> None:
    pairs = [conversations.pair(parse_row(data, folder, "x", "pair")) for data in ROWS[::2]]
    found = []
    for batch in (collate_shared(pairs), collate([example for both in pairs for example in both])):
        model.zero_grad(set_to_none=True)
        learnt_log_probs(model, batch)[0].sum().backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert set(found[0]) == set(found[1])
    scale = max(float(g.abs().max()) for g in found[1].values())
    for name, wanted in found[1].items():
        assert float((found[0][name] - wanted).abs().max()) <= 1e-5 * scale, name
    model.zero_grad(set_to_none=True)
