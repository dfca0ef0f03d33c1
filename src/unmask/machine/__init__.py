"""Machine configuration, functional and cycle readings, memory timing."""
