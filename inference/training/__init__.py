"""Training a model with a router: tasks, methods, the loop, evaluation, many starts at once, what is kept on disk."""
