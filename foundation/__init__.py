"""What corpora, metrics, training and experiments stand on: errors, words, files, figures, templates, versions, Hub.

Nothing in here imports torch or anything else of this repository."""
