"""keye-nano: its shape, its tokenizer, its model card, and the demo clips it is shown with."""
