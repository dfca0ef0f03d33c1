"""The hardware, in Amaranth: one unit per file, sized by the machine configuration, computing what `unmask.numerics` defines."""
