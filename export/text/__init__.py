"""A folder of a sentence encoder or a file of word vectors in, a backbone file for texts out."""
