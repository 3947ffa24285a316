"""What makes the pages alive and their numbers true."""
