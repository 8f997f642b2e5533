"""Pictures of a single environment: a table of text, and a frame that pygame draws."""
