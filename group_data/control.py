"""The computer pyinfra runs on: nothing is installed here, and nothing runs as root."""
