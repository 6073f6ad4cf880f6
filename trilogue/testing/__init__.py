"""What tests of Trilogue, and of programs built on it, may use: real servers that misbehave on request."""
