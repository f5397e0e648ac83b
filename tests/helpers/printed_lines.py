"""What a program printed."""

import json


def lines_of(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]
