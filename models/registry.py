"""Registry of architectures, by `model.name`.

To add one, write a module with `Config`, `LanguageModel` and `Seq2Seq` and another
with `Encoder` (see `models/api.py`), and name them here.
"""

# Modules by name; only that of the chosen architecture is imported.
ARCHITECTURES = {
    "rnn": "models.rnn.model",
    "transformer": "models.transformer.model",
    "transformer_xl": "models.transformer_xl.model",
}

# Modules of the encoders of texts; `Config` stays in the module above.
ENCODERS = {
    "rnn": "models.rnn.encoder",
    "transformer": "models.transformer.encoder",
    "transformer_xl": "models.transformer_xl.encoder",
}
