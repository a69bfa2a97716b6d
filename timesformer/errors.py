"""The error that every check of users' input raises."""


class InputError(ValueError):
    """Input that cannot be used: the message names the field, file or line and what was expected.

    The command line turns it into exit code 2.
    """
