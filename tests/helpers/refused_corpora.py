"""Error messages of opening a corpus."""

import pytest

from data.corpus import open_corpus
from utils.errors import UserError


def refusal(*args, **kwargs):
    """Returns the one-line message of the error that `open_corpus` raises."""
    with pytest.raises(UserError) as caught:
        open_corpus(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message
