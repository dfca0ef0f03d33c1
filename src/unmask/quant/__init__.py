"""Networks in the machine's number formats, and the calibrations that turn a checkpoint into a machine checkpoint."""
