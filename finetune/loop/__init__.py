"""From feedback to a served model: what the store teaches, runs in line, blind trials, promotion."""
