"""Error raised by all checks of user input."""


class InputError(ValueError):
    """Error of invalid input: the message names the field, file or line and what was expected.

    The command line turns it into exit code 2.
    """
