"""Adapters before they are used, what they are called, and whether they answer once they are there."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from engine.errors import EngineError
from engine.keye.processing import encode
from engine.prompt import render
from engine.runtime.base import Message
from engine.runtime.endpoint import Endpoint, ask
from engine.runtime.sglang_options import ADAPTER_RANK
from engine.runtime.source import name_of

_PROBE = "What happens?"
_TOP = 20  # likeliest tokens that are compared
_NOISE = 1e-4  # of a log-probability, from the order in which a batch is added up


def check_adapter(folder: Path) -> None:
    """EngineError, with what to do, unless `folder` holds a LoRA adapter that is safe to read and fits the server."""
    config = folder / "adapter_config.json"
    if not config.is_file():
        raise EngineError(f"{folder} has no adapter_config.json; give the folder of a LoRA adapter.")
    try:
        fields = json.loads(config.read_text("utf-8"))
        rank, kind = int(fields["r"]), fields.get("peft_type", "LORA")
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{config} cannot be read; save the adapter again.") from error
    if kind != "LORA" or not 1 <= rank <= ADAPTER_RANK:
        raise EngineError(f"{folder.name} is {kind} of rank {rank}; the server takes LORA up to rank {ADAPTER_RANK}.")
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file() or any(folder.glob("*.bin")):
        # The server would read a pickle that lies there, and a pickle can run code.
        raise EngineError(f"{folder} must hold adapter_model.safetensors and no .bin file; save the adapter so.")
    try:
        with safe_open(str(weights), framework="pt") as opened:
            names = list(opened.keys())
    except (SafetensorError, OSError) as error:
        raise EngineError(f"{weights} is damaged; save the adapter again.") from error
    if not names or not all(".layers." in name and "visual" not in name for name in names):
        raise EngineError(f"{folder.name} does not adapt the decoder's layers alone; train it on the decoder.")


def adapter_name(folder: Path) -> str:
    """The name that answers carry: the folder's, and what tells its weights from those of a later training there.

    EngineError where the weights cannot be read."""
    try:
        with (folder / "adapter_model.safetensors").open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:8]
    except OSError as error:
        raise EngineError(f"{folder} holds no adapter that can be read; give the folder of a LoRA adapter.") from error
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name_of(folder)).strip("-._")[:50]
    return f"{plain or 'adapter'}-{digest}"


def base_of(adapter: Path) -> Path | None:
    """The folder of the model that an adapter was trained beside, where it names one that is there."""
    check_adapter(adapter)
    named = json.loads((adapter / "adapter_config.json").read_text("utf-8")).get("base_model_name_or_path")
    if not isinstance(named, str) or not named or not Path(named).is_absolute():
        return None
    return Path(named) if (Path(named) / "config.json").is_file() else None


def apply_adapter(model: Any, base: Path, adapter: Path, merge: bool = True) -> Any:
    """The model of the folder `base` with an adapter worked into its weights; without `merge` (of a model in 4 bits)
    the adapter stays beside them. Raises EngineError where the two do not belong together."""
    from peft import PeftModel  # takes a second, and few need it

    check_adapter(adapter)
    try:
        adapted = PeftModel.from_pretrained(model, str(adapter))
        whole = adapted.merge_and_unload(safe_merge=True) if merge else adapted.get_base_model()
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        line = " ".join(str(error).split())[:200]
        raise EngineError(f"{adapter} does not fit the model in {base} ({line}); give its own base.") from error
    return whole.eval()


@torch.inference_mode()
def first_token(model: Any, processor: Any) -> torch.Tensor:
    """Log-probabilities, float32 [vocabulary] on the processor, of the first token after a fixed question.

    EngineError where they are no numbers: such weights cannot answer."""
    prompt, media = render([Message("user", (_PROBE,))], processor.apply_chat_template)
    inputs = dict(encode(processor, prompt, media).to(model.device))
    found = model(**inputs, use_cache=False, logits_to_keep=1).logits[0, -1].float().log_softmax(-1).cpu()
    if not torch.isfinite(found).all():
        raise EngineError("The model computes no numbers, so its weights are damaged; train it again or copy it anew.")
    return found


def alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two results of `first_token` are those of one model."""
    return one.shape == other.shape and bool((one - other).abs().max() <= _NOISE)


def idle(adapter: str) -> EngineError:
    """What is said of an adapter that changes nothing."""
    return EngineError(f"With the adapter {adapter} the model answers exactly as without it; train it further.")


def differs(endpoint: Endpoint, adapter: str) -> bool:
    """Whether the adapter's weights answer: the probabilities of the first token after a fixed question are not those
    of the checkpoint alone."""
    with_it, without = _probabilities(endpoint, adapter), _probabilities(endpoint, None)
    return with_it.keys() != without.keys() or any(abs(with_it[t] - without[t]) > _NOISE for t in with_it)


def _probabilities(endpoint: Endpoint, adapter: str | None) -> dict[str, float]:
    name = endpoint.info.name
    body = {
        "model": f"{name}:{adapter}" if adapter else name,
        "messages": [{"role": "user", "content": _PROBE}],
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": True,
        "top_logprobs": _TOP,
    }
    answer = ask(endpoint.url, endpoint.api_key, "POST", "/v1/chat/completions", body)
    try:
        first = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        return {str(entry["token"]): float(entry["logprob"]) for entry in first}
    except (KeyError, IndexError, TypeError) as error:
        raise EngineError(f"{endpoint.url} tells no probabilities, so no adapter can be verified.") from error
