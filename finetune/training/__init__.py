"""What every stage trains with: the loop, its optimisers and losses, adapters, checkpoints, and several processes."""
