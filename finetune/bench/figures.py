"""Scores that others have published, to set beside one's own (arXiv 2507.01949, table 3; Kwai-Keye/Keye README)."""

from __future__ import annotations

MACRO = "macro"

_KC_MODELS = ("Keye-VL-8B think", "Keye-VL-8B auto", "MiMo-VL 7B", "InternVL3 8B", "Qwen2.5-VL 7B", "Qwen2.5-VL 3B")
_KC = {
    "CPV": (55.1, 55.9, 16.66, 14.95, 20.08, 12.39),
    "Hot_Videos_Aggregation": (54.3, 55.0, 49.00, 52.31, 46.35, 42.38),
    "Collection_Order": (84.4, 82.0, 78.68, 64.75, 59.83, 36.88),
    "Pornographic_Comment": (72.0, 70.4, 68.25, 57.14, 56.08, 56.61),
    "High_Like": (55.3, 53.4, 51.14, 47.03, 47.94, 48.85),
    "SPU": (87.1, 84.9, 81.86, 75.64, 81.34, 74.09),
    MACRO: (68.03, 66.93, 57.62, 51.97, 51.94, 45.20),
}
_VIDEO_MODELS = ("Keye-VL-8B think", "Keye-VL-8B auto", "MiMo-VL 7B-RL", "InternVL3 8B", "Qwen2.5-VL 7B", "GPT-4o")
_VIDEO = {
    "video-mme": (67.7, 59.7, 67.4, 66.3, 65.1, 71.9),
    "video-mmmu": (57.6, 56.9, 43.3, 48.9, 47.4, None),
    "tempcompass": (71.5, 58.2, 68.3, 70.8, 68.3, None),
    "longvideobench": (62.8, 64.8, 50.0, 63.9, 59.3, None),
    "mmvu": (66.1, 60.3, 58.2, 39.4, 45.5, None),
}


def published_figures(benchmark: str) -> dict[str, dict[str, float]]:
    """Percentages by task and model; the row `macro` is the headline. Empty where nothing was published."""
    if benchmark == "kc-mmbench":
        return {task: dict(zip(_KC_MODELS, row, strict=True)) for task, row in _KC.items()}
    if benchmark in _VIDEO:
        pairs = zip(_VIDEO_MODELS, _VIDEO[benchmark], strict=True)
        return {MACRO: {model: value for model, value in pairs if value is not None}}
    return {}
