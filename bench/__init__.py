"""How fast the studio is, against what else there is: every figure is a ratio measured side by side in one run."""
