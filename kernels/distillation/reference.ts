/**
 * KL(softmax(teacher) ‖ softmax(student)) in float64.
 *
 * @module
 */

function logSoftmax(logits: ArrayLike<number>, at: number, width: number): Float64Array {
  const row = Float64Array.from({ length: width }, (_, v) => logits[at + v]);
  const highest = row.reduce((a, b) => Math.max(a, b));
  const logSum = highest + Math.log(row.reduce((sum, value) => sum + Math.exp(value - highest), 0));
  return row.map((value) => value - logSum);
}

/** The divergence of each row, and its gradient with respect to the student's logits. */
export function distillationReference(
  teacher: ArrayLike<number>,
  student: ArrayLike<number>,
  width: number,
): { kl: Float64Array; dstudent: Float64Array } {
  const rows = student.length / width;
  const kl = new Float64Array(rows);
  const dstudent = new Float64Array(student.length);
  for (let row = 0; row < rows; row++) {
    const logP = logSoftmax(teacher, row * width, width);
    const logQ = logSoftmax(student, row * width, width);
    for (let v = 0; v < width; v++) {
      kl[row] += Math.exp(logP[v]) * (logP[v] - logQ[v]);
      dstudent[row * width + v] = Math.exp(logQ[v]) - Math.exp(logP[v]);
    }
  }
  return { kl, dstudent };
}
