"""Methods that add up what each fine-tuned model changed in the base."""
