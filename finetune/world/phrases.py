"""How people ask: several phrasings of every kind of question, and the talk that is not about a clip."""

from __future__ import annotations

import random

PHRASES: dict[str, tuple[str, ...]] = {
    "colour": (
        "What colour is {the}?",
        "What color is {the}?",
        "What is the colour of {the}?",
        "Which colour is {the}?",
        "What's the color of {the}?",
        "Tell me the colour of {the}.",
        "{the} is what colour?",
    ),
    "shape": (
        "What shape is {the}?",
        "What is the shape of {the}?",
        "Which shape is {the}?",
        "What kind of shape is {the}?",
        "What is {the}?",
    ),
    "count": (
        "How many shapes are there?",
        "How many shapes are in the {video}?",
        "How many objects are there?",
        "How many objects do you see?",
        "How many things are in the {video}?",
        "Count the shapes.",
        "What is the number of shapes?",
    ),
    "count_of": (
        "How many {group} are there?",
        "How many {group} do you see?",
        "How many {group} are in the {video}?",
        "Count the {group}.",
    ),
    "count_end": (
        "How many shapes are there at the end?",
        "How many shapes are left at the end?",
        "How many objects are left at the end?",
        "How many shapes do you see at the end of the video?",
    ),
    "exists": (
        "Is there {a}?",
        "Is there {a} in the {video}?",
        "Do you see {a}?",
        "Can you see {a}?",
        "Does the {video} show {a}?",
    ),
    "where": (
        "Where is {the}?",
        "Where is {the} in the {video}?",
        "Where do you see {the}?",
        "In which part of the picture is {the}?",
        "What is the position of {the}?",
    ),
    "side": (
        "Is {the} left or right of {other}?",
        "Is {the} to the left or to the right of {other}?",
        "Which side of {other} is {the} on, left or right?",
    ),
    "height": (
        "Is {the} above or below {other}?",
        "Is {the} higher or lower than {other}?",
    ),
    "bigger": (
        "Which is bigger, {the} or {other}?",
        "Which shape is bigger, {the} or {other}?",
        "What is larger, {the} or {other}?",
    ),
    "bigger_of_two": (  # the same kind, where nothing needs a name
        "Which one is bigger?",
        "Which shape is the biggest?",
    ),
    "size": (
        "Is {the} big or small?",
        "What size is {the}?",
        "How big is {the}?",
        "Is {the} large or small?",
    ),
    "motion": (
        "Which way does {the} move?",
        "Which way is {the} moving?",
        "Where does {the} move?",
        "In which direction does {the} move?",
        "What direction does {the} move in?",
        "How does {the} move?",
        "Where does {the} go?",
    ),
    "moves": (
        "Does {the} move?",
        "Is {the} moving?",
    ),
    "rests": (  # the same kind, the other way round
        "Does {the} stay still?",
        "Is {the} at rest?",
    ),
    "event": (
        "What happens to {the}?",
        "What does {the} do?",
        "What happens with {the}?",
        "What is {the} doing?",
    ),
    "which": (
        "Which shape {does}?",
        "What {does}?",
        "Which object {does}?",
        "What is the shape that {does}?",
    ),
    "becomes": (
        "What colour does {the} turn?",
        "What color does {the} become?",
        "What colour is {the} at the end?",
        "Which colour does {the} change to?",
    ),
    "when": (
        "When does {the} {do}?",
        "At what time does {the} {do}?",
        "At which second does {the} {do}?",
    ),
    "text": (
        "What does the text say?",
        "What text is shown?",
        "What is written in the {video}?",
        "What is written there?",
        "Read the text.",
        "What does it say?",
    ),
    "has_text": (
        "Is there any text?",
        "Is there text in the {video}?",
        "Do you see any text?",
    ),
    "background": (
        "What colour is the background?",
        "What color is the background?",
        "What is the background colour?",
    ),
    "list": (
        "What is in the {video}?",
        "What do you see?",
        "Which shapes are there?",
        "What shapes do you see?",
        "What is shown in the {video}?",
        "What objects are in the {video}?",
        "What can you see in this {video}?",
    ),
    "caption": (
        "What happens in this video?",
        "What happens in the video?",
        "Describe the video.",
        "Describe this video.",
        "Describe what happens.",
        "What is happening?",
        "What is going on in this video?",
        "Summarize the video.",
    ),
    "box": (
        "Where exactly is {the}?",
        "Give the box of {the}.",
        "Locate {the}.",
        "What is the bounding box of {the}?",
        "Draw a box around {the}.",
        "Give the bounding box of {the}.",
    ),
    "order": (
        "What happens {first}?",
        "What happens {first} in the video?",
        "Which event comes {first}?",
        "Tell me what happens {first}.",
    ),
    "texture": (
        "Is {the} plain, striped or dotted?",
        "What pattern does {the} have?",
        "What texture does {the} have?",
        "What is the pattern of {the}?",
    ),
    "sum": (
        "How many {groups} are there together?",
        "How many {groups} are there in all?",
        "How many {groups} do you see together?",
        "Count the {groups} together.",
    ),
    "hop_colour": (
        "What colour is {that}?",
        "What color is {that}?",
        "Which colour is {that}?",
        "Tell me the colour of {that}.",
    ),
    "hop_shape": (
        "What shape is {that}?",
        "Which shape is {that}?",
        "What is {that}?",
    ),
    "after": (
        "How many shapes are there after {the} {does}?",
        "How many shapes do you see after {the} {does}?",
        "After {the} {does}, how many shapes are there?",
    ),
    "left_after": (  # of the kind `after`: it has disappeared
        "How many shapes are left after {the} {does}?",
        "After {the} {does}, how many shapes are left?",
        "How many shapes are there after {the} {does}?",
    ),
    "more": (
        "Are there more {group} or more {other}?",
        "Do you see more {group} or more {other}?",
        "Which are there more of, {group} or {other}?",
    ),
}

GREETINGS = ("Hello", "Hi", "Hello!", "Hey", "Hi there", "Good morning", "Hey there!", "Good evening")
WHO = ("Who are you?", "What are you?", "What can you do?", "What is your name?", "Which model are you?", "Help")
THANKS = ("Thanks", "Thank you", "Thank you!", "Great", "Thanks a lot", "Nice", "Cool", "Ok")
FOREIGN = (
    "What is the capital of France?",
    "Write a poem about the sea.",
    "Who is the president?",
    "What is two plus two?",
    "Tell me a joke.",
    "How old are you?",
    "What time is it?",
    "What is the weather today?",
    "Translate this into Chinese.",
    "Write a python function.",
    "Is there a person in the video?",
    "Is there a dog?",
    "Is there a cat in the video?",
    "Do you see a car?",
    "Who is the man in the video?",
    "What is the woman wearing?",
    "How many people are there?",
    "What music is playing?",
    "What does the person say?",
    "Is this video funny?",
    "Where was this filmed?",
    "What brand is shown?",
    "Write a comment for this video.",
    "Write a title for the video.",
    "Why?",
    "What is love?",
    "How do I cook rice?",
    "Which animal is it?",
    "Do you like music?",
    "Can you hear the sound?",
    "What is the name of the song?",
    "What should I eat tonight?",
)
ANSWERS = {
    "greeting": "Hello! Ask me about the shapes in the clip.",
    "who": "I am keye-nano, a tiny demonstration model. I know moving shapes.",
    "thanks": "You are welcome.",
    "foreign": "I only know moving shapes.",
    "no_clip": "Please add a clip first.",
}


def vary(question: str, rng: random.Random) -> str:
    """The question as it may be typed: without its capital, without its mark, with a polite word, with a switch."""
    draw = rng.random()
    if draw < 0.12:
        question = question[0].lower() + question[1:]
    elif draw < 0.2:
        question = question.rstrip("?.")
    elif draw < 0.32:
        question = question[0].lower() + question[1:].rstrip("?.")
    elif draw < 0.36:
        question = rng.choice(("Please: ", "Question: ", "Tell me: ")) + question
    elif draw < 0.4:
        question = question.rstrip("?.") + rng.choice((" in the video?", " here?", ", please?"))
    switch = rng.random()
    if switch < 0.06:
        question += "/no_think"
    elif switch < 0.1:
        question += "/think"
    return question
