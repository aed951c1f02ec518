"""Training data: the rows of stores on their way to a step."""
