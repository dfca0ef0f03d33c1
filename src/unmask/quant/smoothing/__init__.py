"""Methods of smoothing keys and values before they are cached in few bits; one file per method."""
