"""The text zoo: fine-tunes of a real sentence encoder, each for one task of classifying texts."""
