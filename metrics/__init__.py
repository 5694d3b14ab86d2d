"""How well a model answers: the scores and their titles, agreement with the raters, and intervals around scores."""
