"""Histograms in the event files of TensorBoard."""

import time

import numpy as np

from training.metric_writers import TensorBoard
from training.observe.watch import Histogram


def write_histograms(
    writer: TensorBoard, step: int, split: str, histograms: dict[str, Histogram]
) -> None:
    """Writes histograms to TensorBoard, but those with values that are not finite."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import HistogramProto, Summary

    for name, found in histograms.items():
        counts = np.asarray(found.counts)
        smallest, largest = float(found.smallest), float(found.largest)
        limits = np.linspace(smallest, largest, len(counts) + 1)
        if not np.isfinite(limits).all():
            continue
        proto = HistogramProto(
            min=smallest,
            max=largest,
            num=float(counts.sum()),
            sum=float(found.total),
            sum_squares=float(found.total_of_squares),
            bucket_limit=limits[1:],
            bucket=counts,
        )
        value = Summary.Value(tag=f"{split}/{name}", histo=proto)
        event = Event(step=step, wall_time=time.time(), summary=Summary(value=[value]))
        writer.writer.write_event(event)
    writer.writer.flush()
