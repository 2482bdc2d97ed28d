"""What the processor and the compiler say of themselves."""

from fastml.kernels._machine import cpu_features, cpu_name, llvm_version


def test_tells_processor_and_compiler():
    assert cpu_name()
    assert cpu_features() == sorted(set(cpu_features()))
    assert llvm_version().split(".")[0].isdecimal()
