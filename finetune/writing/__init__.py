"""What a model is asked to write about clips: comments and their moderation, and the short-video skills."""
