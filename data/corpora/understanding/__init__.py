"""Builders of labelled, tagged and segmented texts."""
