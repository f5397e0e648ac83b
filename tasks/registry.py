"""Registry of tasks.

To add one, write a module with a class `Task` and name it here.
"""

# From `cfg.task` to the module. Only the module of the chosen task is imported.
TASKS = {
    "language_modeling": "tasks.language_modeling",
    "translation": "tasks.translation",
}
