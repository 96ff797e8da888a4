"""A source and a store enter, a plan leaves: what stays, what is written anew, what is embedded."""
