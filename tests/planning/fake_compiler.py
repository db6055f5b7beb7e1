"""A stand-in for the planner's compiler. It compiles nothing: its figures follow from the request."""

from mixer_jax.planning.topology import generation, num_devices
from mixer_jax.planning.worker import Request

GIB = 2**30


class FakeCompiler:
    """A compiler for which every image costs the same memory and cycles, and fsdp and remat save memory."""

    version = "libtpu 0, jax 0"

    def __init__(self, gib_an_image: float = 0.1, state_gib: float = 1.0):
        self.gib_an_image, self.state_gib, self.requests = gib_an_image, state_gib, []

    def compile(self, request: Request) -> dict:
        self.requests.append(request)
        config = request.config
        devices = num_devices(request.topology) * request.num_slices
        images = config.batch_size // devices
        state = self.state_gib / config.parallel.fsdp
        temporary = self.gib_an_image * images * (0.5 if config.model.remat else 1)
        if state + temporary > generation(request.topology).memory_gib:
            reason = f"RESOURCE_EXHAUSTED: the total memory required (20.5G) exceeds available HBM (15.25G) {temporary}."
            return {"fits": False, "reason": reason, "devices": devices}
        return {
            "fits": True, "devices": devices,
            "cycles": {"jit(step)/copy": 940_000 * images * (1 if config.model.variant == "B/16" else 2)}, "flops": 1e9 * images,
            "collectives": {"all-reduce": {"count": 1, "bytes": 82_000_000, "f32": 82_000_000}},
            "argument_bytes": 1.5 * state * GIB,
            "parameter_bytes": state * GIB / 2, "optimizer_bytes": state * GIB, "output_bytes": 0, "code_bytes": 0,
            "temporary_bytes": temporary * GIB, "lower_seconds": 0.5, "compile_seconds": 1.0, "cached": True,
        }  # fmt: skip
