"""A network enters, a backbone file leaves, held against its original."""
