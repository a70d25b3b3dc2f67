"""The lab: Docker containers that behave like a rack of small computers."""
