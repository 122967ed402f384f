"""The recipe's stages, one file each: what is trained, with which loss, on what."""
