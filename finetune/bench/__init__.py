"""Benchmarks: KC-MMBench as its authors score it, public video benchmarks, and the world's own held-out set."""
