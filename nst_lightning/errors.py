"""The one exception that means: what was given cannot be used."""


class InputError(ValueError):
    """Something a user gave cannot be used; the text is one line that says what came and what is allowed.

    The command line prints the text and ends with exit code 2.
    """
