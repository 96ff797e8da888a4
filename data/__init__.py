"""Sources, decoding and every contract: files in, arrays out. Imports no other room."""
