"""The text of a compiled program is read: loops, fusions, and collectives in all forms that the compiler writes."""

import jax
import jax.numpy as jnp
import pytest

from mixer_jax.parallel import batch_sharding, make_mesh, replicated
from mixer_jax.planning.estimate import REST, layer_name, layers
from mixer_jax.planning.hlo import costs

PROGRAM = """HloModule jit_step, is_scheduled=true

%fused (p: bf16[8]) -> bf16[8] {
  %p = bf16[8]{0} parameter(0)
  ROOT %inner = bf16[8]{0} add(%p, %p), backend_config={"estimated_cycles":"999"}
}

%all-reduce-scatter.1 (input: bf16[768,3072]) -> bf16[96,3072] {
  %input = bf16[768,3072]{1,0:T(8,128)(2,1)} parameter(0)
  %all-reduce.7 = bf16[768,3072]{1,0:T(8,128)(2,1)} all-reduce(%input), channel_id=7, replica_groups={{0,1}}, to_apply=%sum
  ROOT %slice = bf16[96,3072]{1,0} dynamic-slice(%all-reduce.7), dynamic_slice_sizes={96,3072}
}

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add = f32[] add(%a, %b)
}

%body (state: (s32[], bf16[8])) -> (s32[], bf16[8]) {
  %state = (s32[], bf16[8]) parameter(0)
  %dot = bf16[8]{0} fusion(%state), calls=%fused, metadata={op_name="jit(step)/dot"}, backend_config={"estimated_cycles":"10"}
  %gather = (bf16[4]{0}, bf16[8]{0:T(8,128)}) all-gather-start(%dot), channel_id=3, replica_groups={{0,1}}, dimensions={0}
  %done = bf16[8]{0} all-gather-done(%gather)
}

%condition (state: (s32[], bf16[8])) -> pred[] {
  %state = (s32[], bf16[8]) parameter(0)
  %bound = s32[]{:T(128)} constant(4)
  %count = s32[]{:T(128)} get-tuple-element(%state), index=0
  ROOT %less = pred[]{:T(512)} compare(%count, %bound), direction=LT
}

ENTRY %main (x: bf16[8]) -> bf16[8] {
  %x = bf16[8]{0} parameter(0)
  %copy = bf16[8]{0} copy(%x), backend_config={"estimated_cycles":"5"}
  %loop = (s32[], bf16[8]) while(%copy), condition=%condition, body=%body
  %half = bf16[96,3072]{1,0} fusion(%loop), kind=kCustom, calls=%all-reduce-scatter.1
  %again = bf16[96,3072]{1,0} fusion(%half), kind=kCustom, calls=%all-reduce-scatter.1
  %both = (f32[768]{0:T(1024)}, /*index=1*/f32[2,3]{1,0}) all-reduce(%a, %b), channel_id=9, to_apply=%sum
  %own = f32[4]{0} reduce-scatter(%c), channel_id=11, replica_groups={{0,1},{2,3}}, to_apply=%sum
}
"""


def test_a_loops_body_counts_each_time_and_a_fusion_once():
    cycles, _ = costs(PROGRAM)
    assert cycles == {"copy": 5, "jit(step)/dot": 4 * 10}


def test_collectives_are_told_apart_and_counted_once_with_whole_arrays():
    _, collectives = costs(PROGRAM)
    assert collectives == {
        "all-gather": {"count": 4, "bytes": 4 * 16, "bf16": 4 * 16},
        "reduce-scatter": {"count": 2, "bytes": 768 * 3072 * 2 + 32, "bf16": 768 * 3072 * 2, "f32": 32},
        "all-reduce": {"count": 1, "bytes": 4 * (768 + 6), "f32": 4 * (768 + 6)},
    }


@pytest.mark.parametrize(("sharded_output", "kind"), [(False, "all-reduce"), (True, "all-gather")])
def test_a_program_that_this_machine_compiles_is_read(sharded_output, kind):
    mesh = make_mesh(1)
    split = batch_sharding(mesh)
    shape = jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=split)
    function = (lambda x: 2 * x) if sharded_output else (lambda x: x.sum(0))
    text = jax.jit(function, out_shardings=replicated(mesh)).lower(shape).compile().as_text()
    _, collectives = costs(text)
    size = 4 * 32 * (64 if sharded_output else 1)
    assert collectives == {kind: {"count": 1, "bytes": size, "f32": size}}


@pytest.mark.parametrize(
    ("op_name", "layer"),
    [
        (
            "jit(step)/transpose(jvp(Mixer))/MixerBlock_3/token_mixing/Dense_0/dot_general",
            "MixerBlock/token_mixing/Dense_0, backward",
        ),
        ("jit(step)/jvp(Mixer)/stem/conv_general_dilated", "stem, forward"),
        ("jit(predict)/Mixer/MixerBlock_7/channel_mixing/Dense_1/dot_general", "MixerBlock/channel_mixing/Dense_1"),
        ("jit(step)/while/body/closed_call/jvp(Mixer)/head/dot_general", "head, forward"),
        ("jit(step)/transpose(jvp(Mixer))/stem/cond/branch_0_fun/conv_general_dilated", "stem, backward"),
        ("jit(step)/mul", REST),
        ("copy.3", REST),
    ],
)
def test_an_operation_is_of_the_layer_that_its_name_says(op_name, layer):
    assert layer_name(op_name) == layer


def test_blocks_count_together_and_the_costliest_layer_comes_first():
    names = {f"jit(step)/jvp(Mixer)/MixerBlock_{i}/LayerNorm_0/add": 10 for i in range(4)}
    assert list(layers({"jit(step)/mul": 30} | names).items()) == [("MixerBlock/LayerNorm_0, forward", 40), (REST, 30)]
