"""Keras networks: by name, from a file, from a SavedModel. TensorFlow is imported here."""
