"""Other engines on the same model, data and optimizer, for comparison."""
