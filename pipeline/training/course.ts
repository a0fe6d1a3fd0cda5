/**
 * The course of a loss over training, as evaluations tell it.
 *
 * @module
 */

/** A loss behind so many steps, nats. */
export interface CoursePoint {
  step: number;
  ce: number;
}

/**
 * The loss behind so many steps: between evaluations on a straight line, before the first and after the last as they are.
 *
 * @param points one at least, by ascending step
 */
export function courseOf(points: readonly CoursePoint[]): (step: number) => number {
  return (step) => {
    const next = points.findIndex((point) => point.step >= step);
    if (next < 0) return points.at(-1)!.ce;
    if (next === 0) return points[0].ce;
    const [from, to] = [points[next - 1], points[next]];
    return from.ce + (to.ce - from.ce) * (step - from.step) / (to.step - from.step);
  };
}
