"""A generator of short videos and pictures of coloured shapes with known truth, for training and for measuring."""
