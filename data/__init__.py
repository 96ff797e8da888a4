"""Sources, decoding and every contract: files in, examples and arrays out. Imports no other room."""
