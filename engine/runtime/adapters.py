"""Adapters before they reach a server, and whether they answer once they are there."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from engine.errors import EngineError
from engine.runtime.endpoint import Endpoint, ask
from engine.runtime.sglang_options import ADAPTER_RANK

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
