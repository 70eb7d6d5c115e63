"""Three experts made from one sentence encoder, merged four ways and scored: ``python -m demo``."""
