"""The RTL in lockstep with the functional and the cycle reading, on random programs."""
