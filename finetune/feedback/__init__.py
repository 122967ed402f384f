"""What people asked, what they got and what they thought of it, and the runs that train on it: one SQLite file.

store = Store("data/studio.sqlite")
talk = store.new_conversation("What happens at the end?")
question = store.add_question(talk.id, "What happens at the end?", mode="auto")
answer = store.begin_answer(question.id, mode="auto")
store.update_answer(answer.id, text="The ball")
store.finish_answer(answer.id, "stop", text="The ball drops.")
"""

from finetune.feedback.drafts import Drafts, DraftSet
from finetune.feedback.export import export_conversation
from finetune.feedback.preferences import Comparison, Preference, Preferences, Source, Verdict
from finetune.feedback.rows import Answer, AnswerFacts, Conversation, History, Question, Turn, Video
from finetune.feedback.run_rows import Metric, Run, Stage
from finetune.feedback.runs import Runs
from finetune.feedback.standing import Standing, standing
from finetune.feedback.store import Store
from finetune.feedback.votes import REASONS, Reason, Value, Vote, Votes

__all__ = [
    "REASONS",
    "Answer",
    "AnswerFacts",
    "Comparison",
    "Conversation",
    "DraftSet",
    "Drafts",
    "History",
    "Metric",
    "Preference",
    "Preferences",
    "Question",
    "Reason",
    "Run",
    "Runs",
    "Source",
    "Stage",
    "Standing",
    "Store",
    "Turn",
    "Value",
    "Verdict",
    "Video",
    "Vote",
    "Votes",
    "export_conversation",
    "standing",
]
