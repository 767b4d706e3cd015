"""When requests come, how long they are, and how they are sent."""
