"""Finetune makes a better model from data. It knows nothing of Gradio."""
