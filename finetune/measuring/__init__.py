"""What a model is worth on held-out questions, and how sure that is."""
