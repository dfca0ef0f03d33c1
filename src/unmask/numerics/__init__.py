"""Number formats and the arithmetic of the machine, bit-exact."""
