"""GPU cost models and live GPU measurement: the yardstick that a machine is held against."""
