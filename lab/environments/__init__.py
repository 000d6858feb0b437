"""The environments that this project ships, one OpenEnv package a folder."""
