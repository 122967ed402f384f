"""Modules here are imported by SGLang, which registers their media processors."""
