"""Page of one comparison, or of several on different corpora, in three formats.

Equal results give equal bytes: no format contains the time. The page loads no other
file, and links each run by a path relative to itself.
"""
