"""The exception for errors that users can fix."""


class UserError(ValueError):
    """An error of the user or the environment: one line and exit code 2.

    The message says what is wrong, the value found, and what is allowed. Any other
    exception is a bug in this code and keeps its traceback.
    """

    def _render_traceback_(self) -> list[str]:
        """Returns the lines that IPython shows in place of a traceback."""
        return [f"error: {self}"]
