"""What a machine costs by a table of prices: energy of the events of a program, leakage, and area by block, all before layout."""
