"""Special tokens of language understanding, at the end of every vocabulary."""

MASK = "<mask>"  # a token that is to be predicted
ENTITY_MARKERS = ("<e1>", "</e1>", "<e2>", "</e2>")  # around the entities of a relation
MARKERS = (MASK, *ENTITY_MARKERS)
