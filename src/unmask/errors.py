"""The one exception that a user can cause."""


class UnmaskError(Exception):
    """Bad input: the message is one line that names the file, field or value and says what was expected.

    The command line prints the message and exits with status 2; a library caller may catch it.
    """
