"""Text, pictures and clips to what the model takes (published processors of Preview and 1.5)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, BatchFeature, PreTrainedTokenizerFast

from engine.errors import EngineError
from engine.keye.configuration import KeyeConfig, KeyeVL1_5Config
from engine.keye.image_processing import KeyeImageProcessor, Picture, split_frames, to_rgb
from engine.keye.template import Template, control_strings, load_template, sanitize
from engine.video.types import Frames

Video = Sequence[Picture] | np.ndarray | Tensor
"""[frames, height, width, 3] with values 0…255 (uint8 or float), or a list of single frames of any size."""
Size = tuple[int, int, int, int]
"""Height and width of slow frames, then of fast frames, in pixels."""

IMAGE_TOKEN, VIDEO_TOKEN = "<|image_pad|>", "<|video_pad|>"
_FRAME, _FAST_START, _FAST_END = "<|frame|>", "<|fast_start|>", "<|fast_end|>"
_FPS = 2.0


class KeyeProcessor:
    """One call turns rendered text and its media into the arguments of the model.

    `per_frame` chooses 1.5's layout, in which the time of every frame is written into the text; without it the
    Preview's, in which the model is told the seconds between frames."""

    def __init__(
        self,
        image_processor: KeyeImageProcessor,
        tokenizer: PreTrainedTokenizerFast,
        chat_template: str | None = None,
        per_frame: bool = False,
    ) -> None:
        vocabulary = tokenizer.get_vocab()
        for token in (IMAGE_TOKEN, VIDEO_TOKEN):
            if token not in vocabulary:
                raise EngineError(f"The tokenizer has no token {token}; use the tokenizer of a Keye-VL checkpoint.")
        self.image_processor, self.tokenizer, self.per_frame = image_processor, tokenizer, per_frame
        self.chat_template = chat_template
        self.image_token, self.video_token = IMAGE_TOKEN, VIDEO_TOKEN
        self.image_token_id: int = vocabulary[IMAGE_TOKEN]
        self.video_token_id: int = vocabulary[VIDEO_TOKEN]
        self._controls = control_strings(tokenizer)
        self._template = Template(chat_template) if chat_template else None

    # -- text ---------------------------------------------------------------------------------------------------

    def sanitize(self, text: str) -> str:
        """`text` with every control token that was typed out broken up, so that it is read as ordinary characters."""
        return sanitize(text, self._controls)

    def apply_chat_template(
        self,
        messages: Sequence[dict[str, Any]],
        tokenize: bool = False,
        add_generation_prompt: bool = False,
        **kwargs: Any,
    ) -> str:
        """The prompt of `messages` as text, one placeholder per item, by the published processor template.

        A message has a `role` and a `content`: text, or parts of type text, image or video. Control tokens typed
        within texts are made harmless here, in one place, because only here it is known which text was typed.
        Raises EngineError for an unknown role or a folder without a template. Text only: `tokenize` must stay False."""
        if tokenize:
            raise EngineError("The template makes text only; pass that text and its media to the processor.")
        if self._template is None:
            raise EngineError("The model folder has no chat template; add its chat_template.json.")
        return self._template.render(messages, self.sanitize, add_generation_prompt=add_generation_prompt, **kwargs)

    def decode(self, token_ids: Any, **kwargs: Any) -> str:
        return str(self.tokenizer.decode(token_ids, **kwargs))

    def batch_decode(self, sequences: Any, **kwargs: Any) -> list[str]:
        return list(self.tokenizer.batch_decode(sequences, **kwargs))

    # -- everything ---------------------------------------------------------------------------------------------

    def __call__(
        self,
        text: str | Sequence[str],
        images: Picture | Sequence[Picture] | None = None,
        videos: Video | Sequence[Video] | None = None,
        fps: float | Sequence[float] = _FPS,
        timestamps: Sequence[Sequence[float] | None] | None = None,
        frame_types: Sequence[Sequence[int] | None] | None = None,
        sizes: Sequence[Size | None] | None = None,
        padding: bool | str = False,
        padding_side: str = "left",
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """`input_ids`, `attention_mask` [batch, length], and for the media that were given `pixel_values` float32
        [patches, 3, side, side], `image_grid_thw` int64 [pictures, 3], `pixel_values_videos`, `video_grid_thw`.

        `text` holds one image or video placeholder per item; items are taken in order over the whole batch.
        Preview: `fps` are frames per second of each clip (`second_per_grid_ts` is 1/fps, seconds). 1.5: `timestamps`
        in seconds, `frame_types` 0 slow or 1 fast and `sizes` of each clip, all optional; the result has a grid row
        per run of equal frames and `num_frames` [clips]. Raises EngineError where placeholders and media differ."""
        texts = [text] if isinstance(text, str) else list(text)
        pictures = _as_list(images)
        clips = _as_clips(videos)
        self._check_counts(texts, len(pictures), len(clips))
        data: dict[str, Any] = {}
        image_fill: list[str] = []
        video_fill: list[str] = []
        if pictures:
            made = [self.image_processor.image(picture) for picture in pictures]
            image_fill = [IMAGE_TOKEN * self._tokens(grid) for _, grid in made]
            data["pixel_values"] = torch.from_numpy(_whole([patches for patches, _ in made]))
            data["image_grid_thw"] = torch.tensor([grid for _, grid in made])
        if clips and self.per_frame:
            video_fill = self._frames(clips, timestamps, frame_types, sizes, data)
        elif clips:
            made = [self.image_processor.video(clip) for clip in clips]
            video_fill = [VIDEO_TOKEN * self._tokens(grid) for _, grid in made]
            data["pixel_values_videos"] = torch.from_numpy(_whole([patches for patches, _ in made]))
            data["video_grid_thw"] = torch.tensor([grid for _, grid in made])
            data["second_per_grid_ts"] = _seconds(fps, len(clips))
        expanded = [_fill(t, {IMAGE_TOKEN: image_fill, VIDEO_TOKEN: video_fill}) for t in texts]
        tokens = self.tokenizer(expanded, padding=padding, padding_side=padding_side)
        lengths = {len(row) for row in tokens["input_ids"]}
        if return_tensors and len(lengths) > 1:
            raise EngineError("The texts of the batch differ in length; pass padding=True.")
        names = ("input_ids", "attention_mask")
        return BatchFeature({name: tokens[name] for name in names} | data, tensor_type=return_tensors)

    def _tokens(self, grid: tuple[int, int, int]) -> int:
        return grid[0] * grid[1] * grid[2] // self.image_processor.merge_size**2

    def _check_counts(self, texts: list[str], images: int, videos: int) -> None:
        for what, token, given in (("picture", IMAGE_TOKEN, images), ("clip", VIDEO_TOKEN, videos)):
            wanted = sum(t.count(token) for t in texts)
            if wanted != given:
                raise EngineError(
                    f"The text has {wanted} places for a {what} but {given} were given; "
                    f"write one {token} for each {what}."
                )

    def _frames(
        self,
        clips: list[list[Picture]],
        timestamps: Sequence[Sequence[float] | None] | None,
        frame_types: Sequence[Sequence[int] | None] | None,
        sizes: Sequence[Size | None] | None,
        data: dict[str, Any],
    ) -> list[str]:
        """1.5: adds the clips to `data` and returns the text of each, `<|frame|>`, time and placeholders per frame."""
        fills: list[str] = []
        patches: list[np.ndarray] = []
        runs: list[tuple[int, int, int]] = []
        for i, clip in enumerate(clips):
            times = _of_clip(timestamps, i, len(clip), "timestamps")
            kinds = _of_clip(frame_types, i, len(clip), "frame_types") or [0] * len(clip)
            size = sizes[i] if sizes is not None else None
            frames: list[np.ndarray] = []
            pieces: list[str] = []
            for j, frame in enumerate(clip):
                array = to_rgb(frame)
                fast = bool(kinds[j])
                if size is not None:
                    # Sizes come with frames at their original resolution; the published filter for them is bilinear.
                    target = (size[2], size[3]) if fast else (size[0], size[1])
                    array = self.image_processor.resize(array, target, "bilinear")
                else:
                    array = self.image_processor.resize(array, self.image_processor.size_for(*array.shape[:2]))
                frames.append(array)
                pads = VIDEO_TOKEN * (array.shape[0] * array.shape[1] // self.image_processor.factor**2)
                time = "" if times is None else f"{times[j]:.1f}"
                pieces.append(_FRAME + time + (_FAST_START + pads + _FAST_END if fast else pads))
            made, grids = self.image_processor.cut(frames)
            patches.append(made)
            runs += grids
            fills.append("".join(pieces))
        data["pixel_values_videos"] = torch.from_numpy(_whole(patches))
        data["video_grid_thw"] = torch.tensor(runs)
        data["num_frames"] = torch.tensor([len(clip) for clip in clips])
        return fills

    # -- folders ------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, folder: str | Path, **_: Any) -> KeyeProcessor:
        """From a model folder: tokenizer.json, preprocessor_config.json and the chat template; nothing is downloaded
        and no code of the folder runs. Raises EngineError, saying what is missing."""
        folder = Path(folder)
        if not (folder / "tokenizer.json").is_file():
            raise EngineError(f"{folder} has no tokenizer.json; give the folder of a Keye-VL checkpoint.")
        try:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # the tokenizer library raises bare exceptions
            raise EngineError(f"The tokenizer in {folder} cannot be read ({error}); download it again.") from error
        fields = _read_json(folder / "preprocessor_config.json")
        kind = fields.get("model_type") or _read_json(folder / "config.json").get("model_type")
        per_frame = kind == KeyeVL1_5Config.model_type
        image_processor = KeyeImageProcessor.from_dict(fields, resample="bilinear" if per_frame else "bicubic")
        return cls(image_processor, tokenizer, load_template(folder), per_frame)

    def save_pretrained(self, folder: str | Path, **_: Any) -> None:
        """Write what `from_pretrained` reads, under the published file names."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(str(folder))
        kind = KeyeVL1_5Config if self.per_frame else KeyeConfig
        fields = self.image_processor.to_dict() | {"model_type": kind.model_type}
        (folder / "preprocessor_config.json").write_text(json.dumps(fields, indent=2) + "\n", "utf-8")
        if self.chat_template:
            template = json.dumps({"chat_template": self.chat_template}, indent=2, ensure_ascii=False)
            (folder / "chat_template.json").write_text(template + "\n", "utf-8")


def encode(
    processor: KeyeProcessor, text: str, media: Sequence[Frames | np.ndarray], return_tensors: str | None = "pt"
) -> BatchFeature:
    """The model's arguments for one rendered prompt and its media in the order of their placeholders.

    A clip is `Frames`, a picture uint8 [height, width, 3]. Preview is told the frames per second, 1.5 the time of each
    frame, counted from the clip's start, and which frames are fast. Raises EngineError where text and media differ."""
    wanted = _placeholders(text)
    given = [VIDEO_TOKEN if isinstance(item, Frames) else IMAGE_TOKEN for item in media]
    if sorted(wanted) == sorted(given) and wanted != given:
        raise EngineError(
            "Pictures and clips come in another order than in the text; give them as the text names them."
        )
    clips = [item for item in media if isinstance(item, Frames)]
    kwargs: dict[str, Any] = {}
    if clips and processor.per_frame:
        kwargs["timestamps"] = [[time - clip.start for time in clip.times] for clip in clips]
        kwargs["frame_types"] = [[int(kind == "fast") for kind in clip.kinds] for clip in clips]
    elif clips:
        kwargs["fps"] = [clip.fps for clip in clips]
    return processor(
        text,
        images=[item for item in media if not isinstance(item, Frames)] or None,
        videos=[list(clip.images) for clip in clips] or None,
        return_tensors=return_tensors,
        **kwargs,
    )


def _placeholders(text: str) -> list[str]:
    places = [(at, token) for token in (IMAGE_TOKEN, VIDEO_TOKEN) for at in _find(text, token)]
    return [token for _, token in sorted(places)]


def _find(text: str, token: str) -> list[int]:
    pieces = text.split(token)[:-1]
    at, places = 0, []
    for piece in pieces:
        places.append(at + len(piece))
        at = places[-1] + len(token)
    return places


def _fill(text: str, fills: dict[str, list[str]]) -> str:
    """Replace every placeholder by the next text of its kind, taken from the front of the lists."""
    for token, queue in fills.items():
        head, *rest = text.split(token)
        text = head + "".join(queue.pop(0) + piece for piece in rest)
    return text


def _as_list(images: Picture | Sequence[Picture] | None) -> list[Picture]:
    if images is None:
        return []
    return [images] if isinstance(images, Image.Image | np.ndarray | Tensor) else list(images)


def _as_clips(videos: Video | Sequence[Video] | None) -> list[list[Picture]]:
    clips: Any = videos
    if clips is None:
        return []
    if isinstance(clips, np.ndarray | Tensor):
        clips = [clips] if clips.ndim == 4 else list(clips)
    elif len(clips) and (isinstance(clips[0], Image.Image) or getattr(clips[0], "ndim", 4) == 3):
        clips = [clips]  # one clip as a list of frames
    return [split_frames(clip) for clip in clips]


def _whole(pieces: list[np.ndarray]) -> np.ndarray:
    """The patches of several items as one array; one item's are not copied."""
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _seconds(fps: float | Sequence[float], count: int) -> Tensor:
    rates = [float(fps)] * count if isinstance(fps, int | float) else [float(rate) for rate in fps]
    if len(rates) != count or not all(0 < rate < float("inf") for rate in rates):
        raise EngineError(f"fps must be one positive number or one for each of the {count} clips, not {fps!r}.")
    return torch.tensor([1 / rate for rate in rates])


def _of_clip(values: Sequence[Any] | None, clip: int, frames: int, name: str) -> list[Any] | None:
    given = values[clip] if values is not None and clip < len(values) else None
    if given is None:
        return None
    if len(given) != frames:
        raise EngineError(f"{name} has {len(given)} values for a clip of {frames} frames; give one for each frame.")
    return list(given)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        fields = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise EngineError(f"{path} is not valid JSON ({error}); download it again.") from error
    if not isinstance(fields, dict):
        raise EngineError(f"{path} does not hold an object of fields; download it again.")
    return fields


for _config in (KeyeConfig, KeyeVL1_5Config):
    AutoProcessor.register(_config, KeyeProcessor, exist_ok=True)
