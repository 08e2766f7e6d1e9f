"""What programs exchange is counted as often as it happens."""

from benchmarks.exchange import exchanged

PROGRAM = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%inner (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %x = f32[4,8]{1,0} get-tuple-element(%p), index=1
  %all-to-all.1 = f32[4,8]{1,0} all-to-all(%x), replica_groups={{0,1}}, dimensions={0}
  ROOT %t = (s32[], f32[4,8]{1,0}) tuple(%i, %all-to-all.1)
}

%body (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %all-gather.7 = bf16[2,8]{1,0} all-gather(%y), dimensions={0}
  %w = (s32[], f32[4,8]{1,0}) while(%p), condition=%c, body=%inner, backend_config={"known_trip_count":{"n":"2"}}
  ROOT %t = (s32[], f32[4,8]{1,0}) tuple(%i, %z)
}

%c (p: (s32[], f32[4,8])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (a: f32[4,8]) -> f32[4,8] {
  %all-reduce.3 = (f32[10]{0}, f32[]) all-reduce(%a, %b), to_apply=%add
  ROOT %w = (s32[], f32[4,8]{1,0}) while(%t), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"3"}}
}
"""


def test_bytes_of_loops():
    counts = exchanged(PROGRAM)
    swapped, gathered = 2 * 3 * 4 * 8 * 4, 3 * 2 * 8 * 2
    assert counts["layers"] == {
        "all-to-all bytes": swapped,
        "all-to-all operations": 6,
        "all-gather bytes": gathered,
        "all-gather operations": 3,
    }
    assert counts["once"] == {"all-reduce bytes": 44, "all-reduce operations": 1}
