// KL(softmax(teacher) || softmax(student)) of each row of a block of logits. One row at a time for each workgroup. Both
// log-sum-exps are found in one sweep by the online form: a running maximum, and a sum that shrinks whenever it rises.
//
// teacher, student (row of the block, STRIDE), of which the first V columns count; targets, rows (row). rows holds (KL,
// log sum exp of the teacher, of the student, 1 if the position counts).
@group(0) @binding(0) var<storage, read> teacher: array<f32>;
@group(0) @binding(1) var<storage, read> student: array<f32>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read_write> rows: array<vec4f>;

// Of (highest teacher logit, sum, highest student logit, sum).
fn join(a: vec4f, b: vec4f) -> vec4f {
  let teacher_highest = max(a.x, b.x);
  let student_highest = max(a.z, b.z);
  return vec4f(
    teacher_highest,
    a.y * exp(a.x - teacher_highest) + b.y * exp(b.x - teacher_highest),
    student_highest,
    a.w * exp(a.z - student_highest) + b.w * exp(b.z - student_highest),
  );
}

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var row = group.x; row < arrayLength(&rows); row += groups.x) {
    let at = row * STRIDE;
    var sums = vec4f(-3.0e38, 0.0, -3.0e38, 0.0);
    for (var v = lane; v < V; v += LANES) { sums = join(sums, vec4f(teacher[at + v], 1.0, student[at + v], 1.0)); }
    let teacher_highest = max_over_lanes(lane, sums.x);
    let student_highest = max_over_lanes(lane, sums.z);
    let teacher_log_sum = teacher_highest + log(sum_over_lanes(lane, sums.y * exp(sums.x - teacher_highest)));
    let student_log_sum = student_highest + log(sum_over_lanes(lane, sums.w * exp(sums.z - student_highest)));
    var own = 0.0;
    for (var v = lane; v < V; v += LANES) {
      let log_p = teacher[at + v] - teacher_log_sum;
      own += exp(log_p) * (log_p - (student[at + v] - student_log_sum));
    }
    let kl = sum_over_lanes(lane, own);
    if (lane == 0u) {
      let counted = select(0.0, 1.0, targets[row] < V);
      rows[row] = vec4f(kl * counted, teacher_log_sum, student_log_sum, counted);
    }
  }
}
