"""From files, feedback and the world to training batches."""
