"""Answers that a model gives to known questions: how they are drawn, scored and rewarded."""
