"""From files of conversations to training batches, by the very path that serves answers."""
