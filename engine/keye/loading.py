"""A checkpoint folder to a model: safetensors only, checked before anything is read into memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import BitsAndBytesConfig, PreTrainedModel

from engine.errors import EngineError
from engine.keye.configuration import KeyeConfig, KeyeVL1_5Config
from engine.keye.modeling import KeyeForConditionalGeneration, KeyeVL1_5ForConditionalGeneration

_CLASSES: dict[str, tuple[type[KeyeConfig], type[KeyeForConditionalGeneration]]] = {
    KeyeConfig.model_type: (KeyeConfig, KeyeForConditionalGeneration),
    KeyeVL1_5Config.model_type: (KeyeVL1_5Config, KeyeVL1_5ForConditionalGeneration),
}
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_TIED = "lm_head.weight"


def load_config(folder: str | Path) -> KeyeConfig:
    """The checked configuration of a model folder. Raises EngineError, naming the field that is wrong."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise EngineError(f"{folder} has no config.json; give the folder that holds config.json and the weights.")
    fields = _json(path)
    kind = fields.get("model_type")
    if not isinstance(kind, str) or kind not in _CLASSES:
        raise EngineError(
            f"{path} describes a model of type {kind!r}; give a Keye-VL checkpoint ({' or '.join(_CLASSES)})."
        )
    # `auto_map` names code that the folder would like to run; it is dropped, never followed.
    fields = {name: value for name, value in fields.items() if name not in ("auto_map", "model_type")}
    try:
        config = _CLASSES[kind][0](**fields)
    except EngineError:
        raise
    except Exception as error:  # the library raises all kinds for fields of a wrong type
        raise EngineError(f"{path} cannot be used ({_line(error)}); correct it or download it again.") from error
    config.check()
    return config


def check_folder(folder: Path) -> KeyeConfig:
    """The configuration of a model folder whose weights belong to it, as the headers of its files tell. EngineError
    names what is wrong. Weights that are quantised already have other shapes under other names and are not compared."""
    config = load_config(folder)
    files = weight_files(folder)
    if _json(folder / "config.json").get("quantization_config") is None:
        check_weights(files, _CLASSES[config.model_type][1], config)
    return config


def load_model(
    folder: str | Path,
    dtype: torch.dtype | str = "auto",
    attn_implementation: str | None = None,
    device: str | torch.device = "cpu",
    quantize_4bit: bool = False,
) -> PreTrainedModel:
    """The model of a checkpoint folder, ready to answer (`forward(...).logits`, `generate`).

    `dtype` "auto" keeps the checkpoint's; `attn_implementation` is sdpa, eager or flash_attention_2 (None: sdpa).
    `quantize_4bit` stores the decoder's matrices as NF4 and computes in `dtype`; tower, projector and head stay whole.
    The image and video placeholders are suppressed in `generation_config`. Raises EngineError with what to do."""
    folder = Path(folder)
    config = load_config(folder)
    model_class = _CLASSES[config.model_type][1]
    files = weight_files(folder)
    check_weights(files, model_class, config)
    options: dict[str, Any] = {}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    if quantize_4bit:
        options["quantization_config"] = four_bit(config, None if dtype == "auto" else dtype)
    try:
        model = model_class.from_pretrained(
            str(folder),
            config=config,
            dtype=dtype,
            device_map={"": torch.device(device)},
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            **options,
        )
    except ImportError as error:
        raise EngineError(f"This way of loading needs another package ({_line(error)}); install it.") from error
    except SafetensorError as error:
        raise EngineError(f"The weights in {folder} are damaged ({_line(error)}); download them again.") from error
    prepare_generation(model)
    return model.eval()


def four_bit(config: KeyeConfig, dtype: torch.dtype | str | None) -> BitsAndBytesConfig:
    """NF4 for the decoder's layers; everything that sees, and the head, keeps its precision."""
    with torch.device("meta"):
        model = _CLASSES[config.model_type][1](config)
    # Full names: the library also matches endings, and the tower's `q_proj` ends like the decoder's.
    whole = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.startswith("model.layers.")
    ]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype if isinstance(dtype, torch.dtype) else config.dtype or torch.bfloat16,
        llm_int8_skip_modules=whole,
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder. Raises EngineError for other formats and missing shards."""
    index = folder / _INDEX
    if index.is_file():
        names = _json(index).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise EngineError(f"{index} lists no weights; download it again.")
        files = []
        for name in sorted({str(n) for n in names.values()}):
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise EngineError(f"{index} names {name!r}, which is not a .safetensors file of this folder.")
            if not (folder / name).is_file():
                raise EngineError(f"{folder} lacks the weight file {name}; download the model again.")
            files.append(folder / name)
        return files
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        raise EngineError(
            f"The weights in {folder} are pickled, a format that can run code; convert them to model.safetensors."
        )
    raise EngineError(f"{folder} has no {_SINGLE}; give the folder that holds config.json and the weights.")


def check_weights(files: list[Path], model_class: type[KeyeForConditionalGeneration], config: KeyeConfig) -> None:
    """Compare names and shapes in the files' headers with the model; EngineError names the first that is wrong."""
    found: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            with safe_open(str(file), framework="pt") as opened:
                found |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise EngineError(f"{file} is not a whole safetensors file ({_line(error)}); download it again.") from error
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in model_class(config).state_dict().items()}
    for name, shape in wanted.items():
        if name not in found:
            if name == _TIED and config.tie_word_embeddings:
                continue
            raise EngineError(f"The checkpoint lacks the tensor {name} {list(shape)}; download the model again.")
        if found[name] != shape:
            raise EngineError(
                f"The tensor {name} has the shape {list(found[name])} but config.json asks for {list(shape)}; "
                "use the config.json that belongs to these weights."
            )


def prepare_generation(model: KeyeForConditionalGeneration) -> None:
    """Complete `generation_config`: placeholders are never drawn, and an answer knows where to end."""
    config, generation = model.config, model.generation_config
    assert config.image_token_id is not None and config.video_token_id is not None
    placeholders = {config.image_token_id, config.video_token_id}
    generation.suppress_tokens = sorted(placeholders | set(generation.suppress_tokens or ()))
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if getattr(generation, name) is None:
            setattr(generation, name, getattr(config, name))
    if generation.pad_token_id is None:
        ends = generation.eos_token_id
        generation.pad_token_id = ends[0] if isinstance(ends, list) else ends


def _json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{path} is not valid JSON ({_line(error)}); download it again.") from error
    if not isinstance(fields, dict):
        raise EngineError(f"{path} does not hold an object of fields; download it again.")
    return fields


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
