"""The matrix engine: MX tiles times quantized rows, exact sums, one rounding."""
