"""What the commands read, write and print."""
