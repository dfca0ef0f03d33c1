"""The command line: thin, parses, calls one function, prints."""
