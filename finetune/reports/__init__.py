"""The account of a run: what it left in its folder, as figures and as a page."""
