"""What a report calls the groups of clips that an evaluation tells apart, and the modes."""

from __future__ import annotations

from engine.reasoning.modes import ModeName

GROUPS = {
    "video": "clips, any pair of colour and shape",
    "unseen": "clips with a pair never seen in training",
    "unseen triple": "clips with a colour, shape and motion never seen together",
    "long": "clips of 10 to 16 seconds",
    "chinese": "every second clip, asked in Chinese",
    "picture": "pictures",
    "talk": "small talk and questions without a clip",
}
COUNTED = ("video", "unseen", "unseen triple")
"""The groups over which the kinds of questions are counted."""

MODE_TITLES: dict[ModeName, str] = {
    "auto": "auto",
    "think": "think",
    "no_think": "direct",
    "think_with_image": "with the image",
}
"""What a table calls the modes."""
