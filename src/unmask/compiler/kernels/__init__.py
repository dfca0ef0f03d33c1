"""One file per kernel: how an operator of the network or the sampler becomes instructions."""
