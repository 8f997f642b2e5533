"""The learned allocators: the kinds of them, their networks, and what makes shares of their outputs."""
