"""What a user names in, a network whose weights can be trained out: its blocks, in order."""
