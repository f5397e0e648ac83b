"""What a user can mend, as one exception the entry points turn into one line."""


class UserError(ValueError):
    """A mistake of the user's or of the environment's: exit code 2, one line.

    The message says what was got and what would do. Everything else that is
    raised is a bug of ours and keeps its traceback.
    """
