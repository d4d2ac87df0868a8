"""How the pocket model was made; not part of the installed package."""
