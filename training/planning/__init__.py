"""A log on platforms of different sizes, the allocators that meet an objective there, and the page of it."""
