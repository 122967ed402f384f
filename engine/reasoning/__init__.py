"""How the model is asked to reason, and what of its text is the answer."""

from engine.reasoning.final_answer import final_answer

__all__ = ["final_answer"]
