"""Registry of architectures, by `model.name`.

To add one, write the four classes of `models/api.py` and name their modules here.
"""

import pkgutil

from utils.errors import UserError

# Modules by class; only those of the chosen architecture and task are imported.
ARCHITECTURES = {
    "rnn": {
        "Config": "models.rnn.config",
        "LanguageModel": "models.rnn.language_model",
        "Seq2Seq": "models.rnn.model",
        "Encoder": "models.rnn.encoder",
    },
    "transformer": {
        "Config": "models.transformer.config",
        "LanguageModel": "models.transformer.model",
        "Seq2Seq": "models.transformer.model",
        "Encoder": "models.transformer.encoder",
    },
    "transformer_xl": {
        "Config": "models.transformer_xl.model",
        "LanguageModel": "models.transformer_xl.model",
        "Seq2Seq": "models.transformer_xl.model",
        "Encoder": "models.transformer_xl.encoder",
    },
}


def get_model_class(architecture: str | None, name: str) -> type:
    """Returns the class "Config", "LanguageModel", "Seq2Seq" or "Encoder".

    Raises UserError for an unknown architecture.
    """
    if architecture not in ARCHITECTURES:
        raise UserError(
            f"Unknown model.name {architecture!r}; choose one of "
            f"{', '.join(ARCHITECTURES)}"
        )
    return pkgutil.resolve_name(f"{ARCHITECTURES[architecture][name]}:{name}")
