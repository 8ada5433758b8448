"""One module a task. A task turns pages into items and a model's answers into rows; it knows no model."""
