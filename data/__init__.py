"""Sources, decoding and file formats: files in, arrays out. Imports no other room."""
