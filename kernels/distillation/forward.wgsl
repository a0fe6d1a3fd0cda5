// KL(softmax(teacher) || softmax(student)) of each row of a block of logits. One row at a time for each workgroup. Both
// log-sum-exps are found in one sweep by the online form: a running maximum, and a sum that shrinks whenever it rises.
//
// teacher, student (row of the block, STRIDE4) of vec4, of which the first V columns count; targets, rows (row). rows holds
// (KL, log sum exp of the teacher, of the student, 1 if the position counts).
@group(0) @binding(0) var<storage, read> teacher: array<vec4f>;
@group(0) @binding(1) var<storage, read> student: array<vec4f>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read_write> rows: array<vec4f>;

const LOWEST = vec4f(-3.0e38);

fn inside(v: u32) -> vec4<bool> { return 4u * v + vec4u(0u, 1u, 2u, 3u) < vec4u(V); }
fn highest_of(values: vec4f) -> f32 { return max(max(values.x, values.y), max(values.z, values.w)); }
fn sum_of(values: vec4f) -> f32 { return dot(values, vec4f(1.0)); }

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var row = group.x; row < arrayLength(&rows); row += groups.x) {
    let at = row * STRIDE4;
    // Of the teacher and of the student.
    var highest = LOWEST.xy;
    var sum = vec2f();
    for (var v = lane; v < STRIDE4; v += LANES) {
      let of_teacher = select(LOWEST, teacher[at + v], inside(v));
      let of_student = select(LOWEST, student[at + v], inside(v));
      let higher = max(highest, vec2f(highest_of(of_teacher), highest_of(of_student)));
      let more = vec2f(sum_of(exp(of_teacher - higher.x)), sum_of(exp(of_student - higher.y)));
      sum = sum * exp(highest - higher) + more;
      highest = higher;
    }
    let teacher_highest = max_over_lanes(lane, highest.x);
    let student_highest = max_over_lanes(lane, highest.y);
    let teacher_log_sum = teacher_highest + log(sum_over_lanes(lane, sum.x * exp(highest.x - teacher_highest)));
    let student_log_sum = student_highest + log(sum_over_lanes(lane, sum.y * exp(highest.y - student_highest)));
    var own = 0.0;
    for (var v = lane; v < STRIDE4; v += LANES) {
      let log_p = teacher[at + v] - teacher_log_sum;
      own += sum_of(select(vec4f(), exp(log_p) * (log_p - (student[at + v] - student_log_sum)), inside(v)));
    }
    let kl = sum_over_lanes(lane, own);
    if (lane == 0u) {
      let counted = select(0.0, 1.0, targets[row] < V);
      rows[row] = vec4f(kl * counted, teacher_log_sum, student_log_sum, counted);
    }
  }
}
