"""Batches of the world: what is drawn, how it is packed, and what lies under every patch and token."""
