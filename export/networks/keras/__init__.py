"""Keras networks: by name, from a file, from a SavedModel. Imports TensorFlow when used."""
