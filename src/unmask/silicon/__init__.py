"""What the hardware costs: synthesis to standard cells, timing, power from real activity, and gate-level runs, all before layout."""
