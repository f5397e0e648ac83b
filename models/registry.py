"""Registry of architectures, by `model.name`.

To add one, write a module with `Config`, `LanguageModel` and `Seq2Seq` (see
`models/api.py`), and name it here.
"""

# Modules by name; only that of the chosen architecture is imported.
ARCHITECTURES = {
    "rnn": "models.rnn.model",
    "transformer": "models.transformer.model",
    "transformer_xl": "models.transformer_xl.model",
}
