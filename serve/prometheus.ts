/**
 * Runs as Prometheus metrics (text format 0.0.4).
 *
 * @module
 */
import { RUN_STATUSES, type RunOverview } from "./api.ts";

type Sample = [labels: Record<string, string>, value: number | null | undefined];

/** The metrics page of these runs and `clients` live connections. */
export function prometheusText(runs: readonly RunOverview[], clients: number): string {
  const lines: string[] = [];
  const gauge = (name: string, help: string, samples: Sample[]): void => {
    lines.push(`# HELP sparse_attention_${name} ${help}`, `# TYPE sparse_attention_${name} gauge`);
    for (const [labels, value] of samples) {
      if (value === null || value === undefined || !Number.isFinite(value)) continue;
      const text = Object.entries(labels).map(([key, label]) => `${key}="${escape(label)}"`).join(",");
      lines.push(`sparse_attention_${name}${text && `{${text}}`} ${value}`);
    }
  };
  const ofLast = (read: (last: NonNullable<RunOverview["last"]>) => number | null): Sample[] =>
    runs.flatMap((run): Sample[] =>
      run.last ? [[{ run: run.name, phase: run.last.phase }, read(run.last)]] : []
    );
  gauge(
    "run_status",
    "1 for the run's status, 0 for the others.",
    runs.flatMap((run) =>
      RUN_STATUSES.map((status): Sample => [{ run: run.name, status }, Number(run.status === status)])
    ),
  );
  gauge(
    "step",
    "Steps done in a phase.",
    runs.flatMap((run) => run.phases.map(({ phase, step }): Sample => [{ run: run.name, phase }, step])),
  );
  gauge(
    "steps",
    "Steps of a phase.",
    runs.flatMap((run) => run.phases.map(({ phase, steps }): Sample => [{ run: run.name, phase }, steps])),
  );
  gauge("cross_entropy", "Training loss of the last step, nats.", ofLast(({ ce }) => ce));
  gauge("target_loss", "Loss that the run is held to, nats.", ofLast(({ target }) => target));
  gauge(
    "constraint",
    "Loss above the target as last measured, nats.",
    ofLast(({ constraint }) => constraint),
  );
  gauge(
    "lambda",
    "Multiplier of the constraint, without its proportional term.",
    ofLast(({ lambda }) => lambda),
  );
  gauge("lambda_acting", "Multiplier in the last step's loss.", ofLast((last) => last.lambda_acting));
  gauge("expected_open", "Mean open probability of all edges.", ofLast(({ expected_open }) => expected_open));
  gauge(
    "open_edges",
    "Share of attention edges that are open, as last evaluated.",
    runs.map((run): Sample => [{ run: run.name }, run.evaluation?.open_fraction]),
  );
  gauge(
    "validation_cross_entropy",
    "Loss on validation tokens as last evaluated, nats.",
    runs.map((run): Sample => [{ run: run.name }, run.evaluation?.validation_ce]),
  );
  gauge("grad_norm", "Global gradient norm of the last step.", ofLast(({ grad_norm }) => grad_norm));
  gauge(
    "tokens_per_second",
    "Training speed.",
    runs.map((run): Sample => [{ run: run.name }, run.tokens_per_second]),
  );
  gauge(
    "seconds_left",
    "Expected time to the end.",
    runs.map((run): Sample => [{ run: run.name }, run.seconds_left]),
  );
  gauge(
    "signatures",
    "Failure signatures named so far.",
    runs.map((run): Sample => [{ run: run.name }, run.signatures.length]),
  );
  gauge("clients", "Clients of live events.", [[{}, clients]]);
  return lines.join("\n") + "\n";
}

function escape(label: string): string {
  return label.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
