"""Registry of architectures, by `model.name`.

To add one, write a module with a `Config` dataclass and the classes `LanguageModel`
and `Seq2Seq` (the contract is in `models/api.py`), and name it here.
"""

# Modules by name; only that of the chosen architecture is imported.
ARCHITECTURES = {
    "rnn": "models.rnn.model",
    "transformer": "models.transformer.model",
    "transformer_xl": "models.transformer_xl.model",
}
