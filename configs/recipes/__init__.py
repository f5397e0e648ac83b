"""Models and training settings that several configs share."""
