/**
 * PyTorch as a peer, in a process of its own (torch_peer.py), where Python has it and there is an NVIDIA GPU.
 *
 * @module
 */
import type { MatmulLayout } from "../../../kernels/matmul/op.ts";
import type { ModelConfig } from "../../../pipeline/model/config.ts";
import type { Peer } from "../harness.ts";

const SCRIPT = new URL("./torch_peer.py", import.meta.url).pathname;

/** float32 without TF32, with it, and bfloat16 by autocast. */
const MODES = ["fp32", "tf32", "bf16"] as const;

/** What PyTorch is asked to compute. */
export type TorchCase =
  | { kind: "matmul"; layout: MatmulLayout; m: number; n: number; k: number }
  | {
    kind: "gated attention" | "scaled dot product attention";
    heads: number;
    positions: number;
    headSize: number;
    backward: boolean;
    bias: number;
    edgeScale: number;
  }
  | {
    kind: "training step";
    config: ModelConfig;
    batch: number;
    context: number;
    bias: number;
    lambda: number;
  };

/** The process. */
export interface Torch {
  /**
   * Sends one message and waits for its answer; torch_peer.py says which there are.
   *
   * @throws {Error} with what PyTorch says when it fails
   */
  ask<Answer>(message: unknown): Promise<Answer>;
  close(): Promise<void>;
}

/**
 * Milliseconds of one run: on the wall, the device idle at both ends, and between CUDA events; and the most that was
 * allocated on the device so far.
 */
interface TorchTime {
  wall_ms: number;
  device_ms: number | null;
  device_bytes: number | null;
}

/** Whether Python runs and finds PyTorch, and for `cuda` a GPU. */
export async function hasTorch(device: string): Promise<boolean> {
  const wanted = device === "cuda"
    ? `__import__("torch").cuda.is_available()`
    : `importlib.util.find_spec("torch")`;
  try {
    const { code } = await new Deno.Command("python3", {
      args: ["-c", `import importlib.util, sys; sys.exit(0 if ${wanted} else 1)`],
      stdout: "null",
      stderr: "null",
    }).output();
    return code === 0;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Starts the process. */
export function openTorch(device: string): Torch {
  return openPython(SCRIPT, ["--device", device]);
}

/** Starts a script that answers each line of JSON with one. */
export function openPython(script: string, args: readonly string[] = []): Torch {
  const child = new Deno.Command("python3", {
    args: [script, ...args],
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const writer = child.stdin.getWriter();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  const nextLine = async (): Promise<string> => {
    for (let end = text.indexOf("\n"); end < 0; end = text.indexOf("\n")) {
      const { value, done } = await reader.read();
      if (done) throw new Error("Cannot ask PyTorch as its process has ended");
      text += value;
    }
    const line = text.slice(0, text.indexOf("\n"));
    text = text.slice(line.length + 1);
    return line;
  };
  return {
    async ask<Answer>(message: unknown) {
      await writer.write(new TextEncoder().encode(JSON.stringify(message) + "\n"));
      const answer = JSON.parse(await nextLine()) as Answer & { error?: string };
      if (answer.error !== undefined) throw new Error(answer.error);
      return answer;
    },
    async close() {
      await writer.close();
      await reader.cancel();
      await child.status;
    },
  };
}

/** A peer for each mode of precision; none where there is no PyTorch. */
export function torchPeers(
  torch: Torch | undefined,
  of: TorchCase,
  name = "torch",
): Record<string, () => Promise<Peer>> {
  if (!torch) return {};
  return Object.fromEntries(MODES.map((mode) => [`${name} ${mode}`, async () => {
    const { id } = await torch.ask<{ id: number }>({ open: of, mode });
    const deviceTimes: number[] = [];
    let bytes: number | undefined;
    return {
      async time(runs) {
        const { wall_ms, device_ms, device_bytes } = await torch.ask<TorchTime>({ time: id, runs });
        if (device_ms !== null) deviceTimes.push(device_ms);
        bytes = device_bytes ?? undefined;
        return wall_ms;
      },
      deviceTimes,
      deviceBytes: () => bytes,
      destroy: async () => void await torch.ask({ close: id }),
    };
  }]));
}
