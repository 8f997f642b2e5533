"""`prefetch`: ask for a number that is far away in memory before it is needed."""

from typing import Any

from llvmlite import ir  # pyright: ignore
from numba import types
from numba.extending import intrinsic

_BYTES, _CODE = ir.PointerType(ir.IntType(8)), ir.IntType(32)
_READ, _KEEP, _DATA = _CODE(0), _CODE(3), _CODE(1)  # arguments of LLVM's instruction


@intrinsic
def prefetch(typing: Any, array: Any, row: Any, column: Any) -> Any:
    """Have array[row, column], of two axes, in the cache soon; nothing waits for it.

    No index is negative. One beyond the array is of no use and does no harm.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        fields = context.make_array(signature.args[0])(context, builder, arguments[0])
        steps = (builder.mul(arguments[1 + k], builder.extract_value(fields.strides, k)) for k in range(2))
        address = builder.gep(builder.bitcast(fields.data, _BYTES), [builder.add(*steps)])
        known = ir.FunctionType(ir.VoidType(), [_BYTES, *[_CODE] * 3])
        function = builder.module.declare_intrinsic("llvm.prefetch", [_BYTES], known)
        builder.call(function, [address, _READ, _KEEP, _DATA])
        return context.get_dummy_value()

    return types.none(array, types.intp, types.intp), build
