"""The server side of the echo environment: the environment itself and its HTTP and WebSocket face."""
