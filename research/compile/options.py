"""What the compiler is asked for, besides the program."""

# On TPUs collectives run beside the computation instead of holding it up: an all-gather or all-reduce is spread over the matrix products next to it.
_TPU = {
    "xla_tpu_enable_async_collective_fusion": True,
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": True,
    "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": True,
    "xla_tpu_enable_async_collective_fusion_multiple_steps": True,
    "xla_tpu_overlap_compute_collective_tc": True,
    "xla_enable_async_all_gather": True,
    "xla_enable_async_all_reduce": True,
    # A product cut into pieces to go with the pieces of a gathered operand adds them up in HBM: BERT-large on v5e:4x4 moved twice the bytes so.
    "xla_jf_spmd_threshold_for_windowed_einsum_mib": 1_000_000,
}


def compiler_options(devices) -> dict | None:
    """For programs that run on `devices`."""
    return _TPU if devices[0].platform == "tpu" else None
