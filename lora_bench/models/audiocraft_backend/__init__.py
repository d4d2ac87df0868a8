"""MusicGen on audiocraft's classes."""
