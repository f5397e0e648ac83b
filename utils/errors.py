"""The exception for errors that users can fix."""


class UserError(ValueError):
    """An error of the user or the environment: one line and exit code 2.

    The message says what is wrong, the value found, and what is allowed. Any other
    exception is a bug in this code and keeps its traceback.
    """
