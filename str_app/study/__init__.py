"""Studies of the gates, and pictures of what they do."""
