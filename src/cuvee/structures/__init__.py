"""Outputs shaped unlike their inputs."""
