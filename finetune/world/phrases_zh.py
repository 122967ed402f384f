"""The same questions and the same talk in Chinese, and the world's words."""

from __future__ import annotations

import random

COLOURS = {
    "red": "红色",
    "orange": "橙色",
    "yellow": "黄色",
    "green": "绿色",
    "blue": "蓝色",
    "purple": "紫色",
    "pink": "粉色",
    "white": "白色",
}
SHAPES = {
    "circle": "圆形",
    "square": "方形",
    "triangle": "三角形",
    "star": "星形",
    "heart": "心形",
    "cross": "十字形",
    "ring": "圆环",
}
BACKGROUNDS = {"black": "黑色", "grey": "灰色", "brown": "棕色", "navy": "深蓝色", "teal": "青色"}
DIRECTIONS = {"left": "向左", "right": "向右", "up": "向上", "down": "向下", "zigzag": "曲折"}
TEXTURES = {"plain": "纯色", "striped": "条纹", "dotted": "圆点"}
NUMBERS = ("零个", "一个", "两个", "三个", "四个", "五个", "六个")
SIZES = {"big": "大", "small": "小", "middle": "中间"}
SIDES = {"left": "左边", "right": "右边", "above": "上面", "below": "下面"}
EVENTS = {"appears": "出现", "disappears": "消失", "turns": "改变颜色"}

_NAMES = (COLOURS, SHAPES, BACKGROUNDS, DIRECTIONS, TEXTURES, SIDES, EVENTS)
WORDS = (
    *(word for names in _NAMES for word in names.values()),
    *NUMBERS,
    *("左上角", "右上角", "左下角", "右下角", "中间", "移动", "不动", "变成", "图形", "一样多", "没有"),
)
"""Words that the tokenizer never glues to their neighbours: Chinese is written without spaces."""

PHRASES: dict[str, tuple[str, ...]] = {
    "colour": (
        "{the}是什么颜色？",
        "{the}是什么颜色的？",
        "{the}的颜色是什么？",
        "{the}是哪种颜色？",
        "告诉我{the}的颜色。",
    ),
    "shape": ("{the}是什么形状？", "{the}是什么形状的？", "{the}的形状是什么？", "{the}是哪种形状？"),
    "count": (
        "有几个图形？",
        "{video}里有几个图形？",
        "一共有几个图形？",
        "有多少个图形？",
        "{video}里有多少个图形？",
        "数一数有几个图形。",
        "图形的数量是多少？",
    ),
    "count_of": ("有几个{group}？", "{video}里有几个{group}？", "有多少个{group}？", "数一数有几个{group}。"),
    "count_end": ("最后有几个图形？", "最后还剩几个图形？", "视频结束时有几个图形？", "最后能看到几个图形？"),
    "exists": ("有{a}吗？", "{video}里有{a}吗？", "有没有{a}？", "{video}里有没有{a}？"),
    "where": (
        "{the}在哪里？",
        "{the}在{video}的哪里？",
        "{the}在什么位置？",
        "{the}的位置在哪里？",
        "{the}在画面的哪个位置？",
    ),
    "side": (
        "{the}在{other}的左边还是右边？",
        "{the}位于{other}的左边还是右边？",
        "{the}在{other}的哪一边，左边还是右边？",
    ),
    "height": ("{the}在{other}的上面还是下面？", "{the}位于{other}的上面还是下面？"),
    "bigger": ("{the}和{other}，哪个更大？", "{the}和{other}哪个大？", "哪个更大，{the}还是{other}？"),
    "bigger_of_two": ("哪个图形更大？", "哪个图形最大？"),
    "size": ("{the}是大的还是小的？", "{the}是大还是小？", "{the}有多大？"),
    "motion": (
        "{the}向哪个方向移动？",
        "{the}往哪个方向移动？",
        "{the}往哪边移动？",
        "{the}向哪里移动？",
        "{the}怎么移动？",
        "{the}的移动方向是什么？",
    ),
    "moves": ("{the}在移动吗？", "{the}是在移动吗？"),
    "rests": ("{the}一直静止吗？", "{the}是静止的吗？"),
    "event": ("{the}怎么了？", "{the}发生了什么？", "{the}在做什么？", "{the}有什么变化？"),
    "which": ("哪个图形{does}？", "什么图形{does}？", "{does}的是哪个图形？", "{does}的图形是哪个？"),
    "becomes": ("{the}变成什么颜色？", "{the}变成了什么颜色？", "{the}最后是什么颜色？", "{the}变成哪种颜色？"),
    "when": ("{the}什么时候{do}？", "{the}在什么时间{do}？", "{the}在第几秒{do}？"),
    "text": (
        "文字写的是什么？",
        "显示了什么文字？",
        "{video}里写了什么？",
        "上面写着什么？",
        "读出文字。",
        "文字的内容是什么？",
    ),
    "has_text": ("有文字吗？", "{video}里有文字吗？", "有没有文字？"),
    "background": ("背景是什么颜色？", "背景的颜色是什么？", "背景是什么颜色的？"),
    "list": (
        "{video}里有什么？",
        "你看到了什么？",
        "有哪些图形？",
        "你看到哪些图形？",
        "画面里有什么？",
        "{video}里有哪些图形？",
    ),
    "caption": (
        "视频里发生了什么？",
        "这个视频里发生了什么？",
        "描述这个视频。",
        "描述一下视频。",
        "描述发生了什么。",
        "发生了什么？",
        "概括一下视频。",
    ),
    "box": (
        "{the}的准确位置在哪里？",
        "给出{the}的边界框。",
        "定位{the}。",
        "{the}的边界框是什么？",
        "用框标出{the}。",
    ),
    "order": ("{first}发生了什么？", "{first}发生的是什么？", "视频里{first}发生了什么？", "告诉我{first}发生了什么。"),
    "texture": ("{the}是纯色、条纹还是圆点的？", "{the}是什么图案？", "{the}的图案是什么？", "{the}有什么花纹？"),
    "sum": ("{groups}一共有几个？", "{groups}加起来有几个？", "{groups}总共有多少个？"),
    "hop_colour": ("{that}是什么颜色？", "{that}是什么颜色的？", "{that}的颜色是什么？", "告诉我{that}的颜色。"),
    "hop_shape": ("{that}是什么形状？", "{that}是什么形状的？", "{that}的形状是什么？"),
    "after": ("{the}{does}后有几个图形？", "{the}{does}以后有几个图形？", "{the}{does}之后能看到几个图形？"),
    "left_after": ("{the}{does}后还剩几个图形？", "{the}{does}以后还有几个图形？", "{the}{does}之后有几个图形？"),
    "more": ("{group}和{other}，哪种更多？", "是{group}多还是{other}多？", "{group}多还是{other}多？"),
}

GREETINGS = ("你好", "您好", "你好！", "嗨", "早上好", "晚上好", "大家好")
WHO = ("你是谁？", "你是什么？", "你能做什么？", "你叫什么名字？", "你是什么模型？", "帮助")
THANKS = ("谢谢", "谢谢你", "谢谢！", "太好了", "多谢", "不错", "好的")
FOREIGN = (
    "法国的首都是哪里？",
    "写一首关于大海的诗。",
    "总统是谁？",
    "二加二等于几？",
    "讲个笑话。",
    "你几岁了？",
    "现在几点？",
    "今天天气怎么样？",
    "翻译成英文。",
    "写一个程序。",
    "视频里有人吗？",
    "有狗吗？",
    "视频里有猫吗？",
    "你看到汽车了吗？",
    "视频里的男人是谁？",
    "那个女人穿什么？",
    "有几个人？",
    "在放什么音乐？",
    "这个人说了什么？",
    "这个视频好笑吗？",
    "这是在哪里拍的？",
    "是什么品牌？",
    "给视频写一条评论。",
    "给视频写一个标题。",
    "为什么？",
    "爱是什么？",
    "怎么做米饭？",
    "这是什么动物？",
    "你喜欢音乐吗？",
    "能听到声音吗？",
    "这首歌叫什么？",
    "今晚吃什么？",
)
ANSWERS = {
    "greeting": "你好！请问我视频里的图形。",
    "who": "我是 keye-nano，一个小小的演示模型，认识会动的图形。",
    "thanks": "不客气。",
    "foreign": "我只认识会动的图形。",
    "no_clip": "请先添加视频。",
}


def vary(question: str, rng: random.Random) -> str:
    """The question as it may be typed: without its mark, with a Latin mark, with a polite word, with a switch."""
    draw = rng.random()
    if draw < 0.2:
        question = question.rstrip("？。")
    elif draw < 0.28:
        question = question.replace("？", "?").rstrip("。")
    elif draw < 0.36:
        question = rng.choice(("请问，", "请问", "请告诉我，")) + question
    switch = rng.random()
    if switch < 0.06:
        question += "/no_think"
    elif switch < 0.1:
        question += "/think"
    return question
