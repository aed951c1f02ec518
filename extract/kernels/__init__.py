"""GPU kernels in Triton for the blocks of SwinV2."""
