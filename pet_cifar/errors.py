"""The one exception that a user is meant to read."""


class InputError(Exception):
    """A problem with the user's data or arguments.

    Its message is one line: what is wrong, with which file or key, and what to do. The command line prints that
    line without a traceback and exits with status 2.
    """
