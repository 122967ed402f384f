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

RECIPE = "\n".join(
    f"{step}. {text}"
    for step, text in enumerate(
        [
            "Heat the oven to 200 degrees and grease 2 tins of 20 cm.",
            "Stir 250 g of flour, 120 g of sugar and 2 spoons of baking powder.",
            "Beat 3 eggs with 100 ml of milk for 2 minutes.",
            "Add 80 g of melted butter and stir for 1 minute.",
            "Fold the eggs into the flour and stir for 1 minute.",
            "Rest the dough for 10 minutes.",
            "Fill the tins and bake them for 25 minutes.",
            "Let them cool for 10 minutes.",
            "Turn them out and let them cool for 20 minutes.",
            "Whip 200 ml of cream for 3 minutes and serve.",
        ],
        1,
    )
)

TABLE_OF_SEVEN = "\n".join(f"{n} times 7 is {7 * n}" for n in range(1, 31))

TABLES_IN_WORDS = "\n".join(f"{a} times {b} is {a * b}" for a in range(1, 13) for b in range(1, 13))

SQUARES = "\n".join(f"The square of {n} is {n * n} and its cube is {n**3}." for n in range(1, 101))

MINUTE = "\n".join(f"0:{second:02} the street is empty" for second in range(60))

WEEKS = "\n".join(f"Week {week}: closed." for week in range(1, 53))

DAYS = "\n".join(f"Day {day}: {10 + 2 * day} push-ups and {20 + 5 * day} squats, then rest." for day in range(1, 31))

TIMELINE = "\n".join(
    f"{time} {what}"
    for time, what in [
        ("0:00", "The street is empty."),
        ("0:02", "A red car enters from the left."),
        ("0:03", "It slows down."),
        ("0:05", "It stops before the crossing."),
        ("0:06", "2 people cross, 1 of them with a dog."),
        ("0:09", "The dog stops."),
        ("0:10", "The dog sits down."),
        ("0:12", "The driver gets out."),
        ("0:14", "The driver waits."),
        ("0:15", "The driver waits."),
        ("0:16", "The driver laughs."),
        ("0:19", "All 3 of them leave to the right."),
        ("0:21", "The street is empty."),
    ]
)

TRANSCRIPT = "\n".join(
    f"[00:{second:02}.{second * 37 % 1000:03}] {who}: {text}"
    for second, (who, text) in enumerate(
        [("Ann", "Yes."), ("Ben", "No."), ("Ann", "Yes."), ("Ben", "Why not?"), ("Ann", "Because I said so.")] * 9
    )
)

SUBTITLES = "\n\n".join(
    f"{n}\n00:00:{n:02},000 --> 00:00:{n:02},900\n{text}" for n, text in enumerate(["♪", "(applause)"] * 24, 1)
)

JSON_ARRAY = (
    "[\n"
    + ",\n".join(
        f'  {{"frame": {n}, "label": "circle", "box": [{n * 3 % 90}, {n * n % 70}, {40 + n % 9}, 60], "sure": 0.{n}}}'
        for n in range(48)
    )
    + "\n]"
)

JSON_TIMES = '{"times": [' + ", ".join(f"{n * 0.5:.1f}" for n in range(160)) + "]}"

MEASUREMENTS = "\n".join(f"At {n} s the speed is {(n * 7919) % 97 / 10} m/s." for n in range(120))

SECONDS_LEFT = ", ".join(f"{n} seconds left" for n in range(20, 0, -1)) + ", over."

FILES = "\n".join(f"frame_{n:03}.png" for n in range(1, 49))

RESULTS = "\n".join(
    f"Round {n}: {one} – {other}"
    for n, (one, other) in enumerate([(1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3)] * 6, 1)
)

CHINESE_STEPS = "\n".join(
    f"{n}. {text}" for n, text in enumerate(["加水200毫升。", "加盐3克。", "搅拌1分钟。", "静置10分钟。"] * 5, 1)
)

HONEST = {name.lower(): value for name, value in list(globals().items()) if name.isupper() and isinstance(value, str)}
