"""TensorBoard's event files, so far as to drop what an interrupted run left.

A file is a row of records: the length of an Event (8 bytes), a checksum of the
length (4), the Event as a protocol buffer, a checksum of it (4).
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event

HEADER, FOOTER = 12, 4


def records(content: bytes) -> Iterator[tuple[bytes, Event]]:
    """Each whole record and the Event in it; a torn end is left out."""
    start = 0
    while start + HEADER <= len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        end = start + HEADER + length + FOOTER
        if end > len(content):
            return
        event = Event()
        event.ParseFromString(content[start + HEADER : end - FOOTER])
        yield content[start:end], event
        start = end


def keep_events(folder: Path, is_kept: Callable[[int, str], bool]) -> None:
    """Drops scalars for which `is_kept(step, tag)` is false, in all files."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        kept = b"".join(
            record
            for record, event in records(content)
            if all(is_kept(event.step, value.tag) for value in event.summary.value)
        )
        if kept != content:
            draft = path.with_name(f"draft.{path.name}")
            draft.write_bytes(kept)
            draft.replace(path)
