"""Weights divided among processes: the same loss and the same gradients as in one, whatever each has to see."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image

from engine.keye import KeyeForConditionalGeneration, KeyeProcessor, load_model
from engine.video import Clip, sample, sampling_for
from finetune.data.collate import collate
from finetune.data.conversations import Conversations
from finetune.data.rows import parse_row
from finetune.stages.sft import Answering
from finetune.training.adapters import TARGETS, add_lora, lora_modules
from finetune.training.shard import shard, whole_state

ROOT = Path(__file__).resolve().parents[2]
NANO, DEMO = ROOT / "assets" / "keye-nano", ROOT / "assets" / "demo"
CLIP = {"path": "heart-and-cross.mp4", "max_frames": 4}


def _talk(question: str, answer: str, **media: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **media}


BATCHES = {
    "both see": ([_talk("<video>What?", "A heart.", videos=[CLIP])],
                 [_talk("<image>What?", "A picture.", images=["frame.png"]), _talk("Hi", "Hello.")]),
    "one sees": ([_talk("<video>What colour?", "Orange.", videos=[CLIP])],
                 [_talk("Hello", "Hello. What shall we look at?")]),
    "the other sees": ([_talk("Hello", "Hello.")], [_talk("<image>What?", "A picture.", images=["frame.png"])]),
    "nobody sees": ([_talk("Hello", "Hello.")], [_talk("Thanks", "You are welcome.")]),
    "one has nothing": ([_talk("<video>What colour?", "Orange.", videos=[CLIP])], []),
}  # fmt: skip
"""What each of two processes gets in a step."""


def _batches(lora: bool) -> dict[str, Any]:
    return {name: BATCHES[name] for name in ("one sees", "one has nothing")} if lora else BATCHES


def _model(lora: bool) -> tuple[KeyeForConditionalGeneration, Conversations]:
    model: Any = load_model(NANO, torch.float32)
    model.train()
    if lora:
        add_lora(model, NANO, 4, 0.0, TARGETS, "s")
        model.requires_grad_(False)
        for module in lora_modules(model).values():
            module.requires_grad_(True)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(1)
            for name, p in model.named_parameters():
                if "lora_B" in name:
                    p.copy_(torch.randn(p.shape, generator=generator) * 0.05)
    talks = Conversations(KeyeProcessor.from_pretrained(NANO), model.position_rule(), sampling_for(NANO), 2048)
    return model, talks


def _batch(talks: Conversations, rows: list[dict[str, Any]], folder: Path) -> Any:
    return collate([talks.example(parse_row(row, folder, "x")) for row in rows])


def _gradients(objective: torch.nn.Module) -> dict[str, torch.Tensor]:
    out = {}
    for name, p in objective.named_parameters():
        if p.grad is not None:
            grad: Any = p.grad
            out[name] = (grad.full_tensor() if hasattr(grad, "full_tensor") else grad).clone()
    return out


def _work(rank: int, folder: Path, meeting: Path) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2, timeout=timedelta(minutes=5)
    )
    found: dict[str, Any] = {}
    for lora in (False, True):
        model, talks = _model(lora)
        objective = Answering(model)
        shard(objective)
        kept = sum(p.to_local().numel() for p in objective.parameters())  # type: ignore[attr-defined]
        found[f"{lora} kept"] = kept / sum(p.numel() for p in objective.parameters())
        for name, parts in _batches(lora).items():
            batch = _batch(talks, parts[rank], folder)
            count = torch.tensor(batch.learnt)
            dist.all_reduce(count)
            objective.zero_grad(set_to_none=True)
            share = objective(batch).loss * (2 / count)  # gradients are averaged
            share.backward()
            loss = share.detach() / 2
            dist.all_reduce(loss)
            found[f"{lora} {name}"] = (float(loss), _gradients(objective))
        state = whole_state(objective)
        found[f"{lora} state"] = sorted(state)
        if rank == 0:
            truth = _model(lora)[0].state_dict()
            found[f"{lora} same"] = all(torch.equal(state[f"model.{k}"], v) for k, v in truth.items())
    torch.save(found, folder / f"found{rank}.pt")
    dist.destroy_process_group()


def test_divided_weights_learn_what_whole_ones_do(tmp_path: Path) -> None:
    for clip in DEMO.glob("*.mp4"):
        (tmp_path / clip.name).symlink_to(clip)
    frame = sample(Clip(DEMO / "heart-and-cross.mp4"), sampling_for(NANO)).images[0]
    Image.fromarray(frame).save(tmp_path / "frame.png")
    mp.spawn(_work, (tmp_path, tmp_path / "meeting"), 2)  # type: ignore[no-untyped-call]
    first, second = (torch.load(tmp_path / f"found{rank}.pt", weights_only=True) for rank in range(2))
    for lora in (False, True):
        model, talks = _model(lora)
        objective = Answering(model)
        assert first[f"{lora} kept"] < 0.6  # about half of everything in each
        assert first[f"{lora} same"] and second[f"{lora} state"] == []
        for name, (one, other) in _batches(lora).items():
            batch = _batch(talks, [*one, *other], tmp_path)
            objective.zero_grad(set_to_none=True)
            loss = objective(batch).loss / batch.learnt
            loss.backward()
            truth = _gradients(objective)
            scale = max(float(g.abs().max()) for g in truth.values())
            for found in (first, second):
                value, gradients = found[f"{lora} {name}"]
                assert abs(value - loss.item()) <= 1e-5
                assert set(gradients) == set(truth)
                for parameter, wanted in truth.items():
                    off = float((gradients[parameter] - wanted).abs().max())
                    assert off <= 1e-5 * max(1.0, scale), (name, parameter)
