"""What kernels are compiled for: the processor and the compiler."""

import llvmlite.binding


def cpu_name():
    """Name of the processor, in LLVM's words."""
    return llvmlite.binding.get_host_cpu_name()


def cpu_features():
    """Sorted names of the instruction sets that the processor has."""
    return sorted(name for name, present in llvmlite.binding.get_host_cpu_features().items() if present)


def llvm_version():
    """Version of LLVM, as in ``"20.1.8"``."""
    return ".".join(map(str, llvmlite.binding.llvm_version_info))
