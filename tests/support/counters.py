"""The counters that a checkpoint keeps, of a run that has just begun."""

COUNTERS = {"samples": 0, "updates": 0, "good_steps": 0, "bad_steps": 0, "loss_scale": 1.0} | {
    "first_validation_loss": None
}
