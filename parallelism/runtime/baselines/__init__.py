"""Other engines on the same model, data and optimizer, to compare with."""
