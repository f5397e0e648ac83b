"""What opening a corpus is refused with."""

import pytest

from data.corpus import open_corpus
from utils.errors import UserError


def refusal(*args, **kwargs):
    """The message of the one-line error that `open_corpus` ends in."""
    with pytest.raises(UserError) as caught:
        open_corpus(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message
