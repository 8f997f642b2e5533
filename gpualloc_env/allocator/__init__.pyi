from .allocator import Allocator as Allocator
from .allocator import Fallback as Fallback
from .cluster_allocator import ClusterAllocator as ClusterAllocator
from .file import AllocatorError as AllocatorError
from .file import Manifest as Manifest
from .partition import mig_slices as mig_slices
from .partition import mps_percentages as mps_percentages
from .shadow import Shadow as Shadow
from .telemetry import Telemetry as Telemetry

__all__ = [
    "Allocator",
    "AllocatorError",
    "ClusterAllocator",
    "Fallback",
    "Manifest",
    "Shadow",
    "Telemetry",
    "mig_slices",
    "mps_percentages",
]
