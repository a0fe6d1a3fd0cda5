// teacher -> d(KL)/d(student logits) in place: weight * scale * (softmax(student) - softmax(teacher)), 0 for a position
// that does not count and in the padding columns.
struct Loss { weight: f32 }
@group(0) @binding(0) var<uniform> loss: Loss;
@group(0) @binding(1) var<storage, read> student: array<vec4f>;
@group(0) @binding(2) var<storage, read> rows: array<vec4f>;
@group(0) @binding(3) var<storage, read> scale: array<f32>;
@group(0) @binding(4) var<storage, read_write> teacher: array<vec4f>;

fn inside(v: u32) -> vec4<bool> { return 4u * v + vec4u(0u, 1u, 2u, 3u) < vec4u(V); }

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var row = group.x; row < arrayLength(&rows); row += groups.x) {
    let at = row * STRIDE4;
    let sums = rows[row];
    // Where no position counts the weight is infinite: times 0 it would be no number.
    let weight = select(0.0, loss.weight * scale[0], sums.w != 0.0);
    for (var v = lane; v < STRIDE4; v += LANES) {
      let gradient = weight * (exp(student[at + v] - sums.z) - exp(teacher[at + v] - sums.y));
      teacher[at + v] = select(vec4f(), gradient, inside(v));
    }
  }
}
