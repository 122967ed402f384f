"""How the model is asked to reason, and what is read from and done about what it writes."""
