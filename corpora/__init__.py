"""Corpora of emotional speech: one module per corpus turns a folder into rows, `arrow` turns rows into a dataset.
Nothing in here imports torch, and the modules that read a corpus do not import `datasets` either."""

# The order of the labels, and of the model's logits. The configuration, which travels without this package, lists the
# same; taken from there it would cost every conversion the import of transformers.
EMOTIONS = ("neutral", "happy", "angry", "surprise", "sad", "fear", "disgust")
