"""The kinds of files that examples may be: each reads bytes into a backbone's input array."""
