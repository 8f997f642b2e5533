from .allocator import Allocator as Allocator
from .allocator import Fallback as Fallback
from .file import AllocatorError as AllocatorError
from .file import Manifest as Manifest
from .shadow import Shadow as Shadow

__all__ = [
    "Allocator",
    "AllocatorError",
    "Fallback",
    "Manifest",
    "Shadow",
]
