"""The first operation of a training step that was not finite, or that grew."""
