// One AdamW step (Loshchilov and Hutter, arXiv 1711.05101), decay decoupled:
//   w <- w - rate decay w - rate (m / c1) / (sqrt(v / c2) + epsilon),  m, v the moving averages of gradient and square
// Columns from DECAY_FROM on decay; they are counted in elements. Does nothing where update says that the step is skipped.
struct Optimiser {
  learning_rate: f32,
  beta1: f32,
  beta2: f32,
  epsilon: f32,
  weight_decay: f32,
  correction1: f32,
  correction2: f32,
}
@group(0) @binding(0) var<uniform> optimiser: Optimiser;
@group(0) @binding(1) var<storage, read> update: array<f32>;
@group(0) @binding(2) var<storage, read> gradient: array<ELEMENT>;
@group(0) @binding(3) var<storage, read_write> weight: array<ELEMENT>;
@group(0) @binding(4) var<storage, read_write> first: array<ELEMENT>;
@group(0) @binding(5) var<storage, read_write> second: array<ELEMENT>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  if (update[2] != 0.0) { return; }
  for (var n = id.x; n < N; n += groups.x * 64u) {
    let g = gradient[n] * update[1];
    let m = optimiser.beta1 * first[n] + (1.0 - optimiser.beta1) * g;
    let v = optimiser.beta2 * second[n] + (1.0 - optimiser.beta2) * g * g;
    first[n] = m;
    second[n] = v;
    let decay = select(0.0, optimiser.weight_decay, n % COLUMNS >= DECAY_FROM);
    let direction = (m / optimiser.correction1) / (sqrt(v / optimiser.correction2) + optimiser.epsilon);
    weight[n] -= optimiser.learning_rate * (decay * weight[n] + direction);
  }
}
