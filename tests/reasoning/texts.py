"""Honest texts that repeat themselves: what the repetition guard must let pass. Written for these tests."""

from __future__ import annotations

SHOPPING = "\n".join(
    f"- {amount} {what}"
    for amount, what in [
        ("two", "red apples"),
        ("two", "green apples"),
        ("two", "yellow apples"),
        ("two", "red pears"),
        ("two", "green pears"),
        ("one", "loaf of bread"),
        ("one", "loaf of rye"),
        ("one", "bag of rice"),
        ("one", "bag of flour"),
        ("one", "bag of sugar"),
    ]
    * 3
)

FRAMES = "\n".join(
    f"{i}. At 0:{i:02} the red circle is at the left, the blue square is at the right and nothing else moves."
    for i in range(1, 46)
)

TABLE = "| time | shape | colour | place |\n|------|-------|--------|-------|\n" + "\n".join(
    f"| 0:{i:02} | circle | red | {place} |" for i, place in enumerate(["left", "left", "middle", "right"] * 12)
)

WIDE_TABLE = (
    "|"
    + " a |" * 24
    + "\n"
    + "|"
    + "---|" * 24
    + "\n"
    + "\n".join("|" + "".join(f" {(row * column) % 7} |" for column in range(24)) for row in range(8))
)

TIMES_TABLE = "\n".join(f"{a} × {b} = {a * b}" for a in range(1, 13) for b in range(1, 13))

NUMBERS = ", ".join(str(i) for i in range(1, 400))

CODE = "\n".join(
    f"""    if name == "{name}":
        value = values["{name}"]
        if value is None:
            raise ValueError("{name} is missing")
        result["{name}"] = float(value)"""
    for name in [
        "width",
        "height",
        "depth",
        "left",
        "top",
        "right",
        "bottom",
        "colour",
        "shape",
        "start",
        "end",
        "speed",
        "angle",
    ]
)

MATRIX = (
    "mask = [\n"
    + "    ["
    + "0, " * 7
    + "0],\n"
    + ("    [" + "0, " * 7 + "1],\n") * 3
    + "    [1, 0, 0, 0, 0, 0, 0, 0],\n]"
)

HTML = "<table>\n" + "\n".join(f"  <tr><td></td><td></td><td>{i}</td></tr>" for i in range(30)) + "\n</table>"

SVG = '<path d="' + " ".join(f"L {i * 4} {(i * i) % 90}" for i in range(120)) + ' z"/>'

LYRICS = (
    """The river goes over the stone, over the stone,
The river goes over the stone.
And nobody hears it, alone, all alone,
And nobody hears it alone.

"""
    + "Oh la la la, oh la la la, oh la la la, the night is long,\nOh la la la, oh la la la, oh la, the night is gone.\n"
    * 4
)

REFRAIN = "\n\n".join(
    f"{verse}\n"
    + "Row on, row on, the tide is turning,\nRow on, row on, the lamp is burning,\nRow on till morning light.\n" * 2
    for verse in (
        "We left the harbour in the rain,",
        "We passed the point and came again,",
        "We mended sail with thread and twine,",
        "We steered by one star out of nine,",
    )
)

LAUGHTER = "She laughed: " + "ha" * 40 + "! And he: " + "ha, " * 30 + "stop it, stop it, stop it!"

POEM = """Water, water in the well,
water, water in the bell,
what the water wants to tell
water, water will not tell.

Stone on stone and stone on stone,
stone on stone on stone, alone,
bone on bone on bone on bone,
dust on dust and stone on stone.
"""

COUPLETS = "\n".join(
    f"{a}，{b}。"
    for a, b in [
        ("春雨润春山，山山春色满", "秋风吹秋水，水水秋光寒"),
        ("日日日新，又日新", "年年年好，再年好"),
        ("看山看水看云，看不尽", "听雨听风听雪，听无声"),
        ("行行行，行行又行行", "坐坐坐，坐坐还坐坐"),
        ("红圆向左，左边红圆红", "蓝方向右，右边蓝方蓝"),
        ("高高高，高处不高", "远远远，远方非远"),
    ]
)

CHINESE_SONG = "\n".join(
    f"{line}\n啦啦啦啦，啦啦啦啦，唱一支歌，\n啦啦啦啦，啦啦啦啦，过一条河。"
    for line in ("天上有云", "山上有树", "河里有鱼", "心里有你")
)

CHINESE_LIST = "\n".join(f"第{i}秒：红色圆形在左边，蓝色方形在右边，没有其他变化。" for i in range(1, 40))

DOTS = "\n".join(f"Chapter {i} {'.' * 60} {i * 7}" for i in range(1, 15))

RULES = "\n\n".join("-" * 80 + f"\nPart {i}\n" + "=" * 80 for i in range(6))

DIALOGUE = "\n".join(
    f"— {who}: No. — {other}: Yes." for who, other in [("Anna", "Ben"), ("Ben", "Cleo"), ("Cleo", "Anna")] * 6
)

COUNTDOWN = "Wait. " * 10 + "… ".join(str(i) for i in range(60, 0, -1)) + " go go go go go!"

HONEST = {name.lower(): value for name, value in list(globals().items()) if name.isupper() and isinstance(value, str)}
