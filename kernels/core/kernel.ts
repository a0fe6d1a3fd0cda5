/**
 * Kernels: WGSL source and constants in, a cached pipeline with bindings by name out.
 *
 * @module
 */
import { type Device, DeviceError } from "./device.ts";
import { storeInHalf } from "./half.ts";
import { scalesName, storeInInt8 } from "./int8.ts";
import { BINDING_ALIGNMENT, checkTensor, type Tensor } from "./tensor.ts";
import { readByTexture, type Shadow, textureEntry, type TextureReads } from "./textures.ts";
import { unroll } from "./unroll.ts";

/** What a kernel is made from. */
export interface KernelSource {
  /** Name in error messages and captures, for example `matmul nn`. */
  label: string;
  /** WGSL with one entry point `main`, explicit `@group(0) @binding(n)` declarations, `$for` and `$if` lines (unroll.ts). */
  source: string;
  /** Values the source uses: integers become `u32`, numbers given as `{ f32 }` become `f32` constants. */
  constants?: Record<string, number | { f32: number }>;
  /** Names that are declared as `bool` constants. */
  flags?: Record<string, boolean>;
  /** Storage variables whose tensors are f16; see half.ts. */
  half?: readonly string[];
  /** Matrices whose tensors are int8, with the length of their rows in vectors of four, as WGSL; see int8.ts. */
  int8?: Readonly<Record<string, string>>;
  /** Storage variables that a CPU driver reads by texture; see textures.ts. */
  textures?: readonly string[];
}

/** Tensors by the name of the WGSL variable they are bound to. */
export type Bindings = Record<string, Tensor>;

interface Declaration {
  /** Of the tensor that is bound. */
  name: string;
  binding: number;
  access: "uniform" | "read" | "read_write" | GPUTextureFormat;
  /** Of the elements of the tensor, where kernels must be written for it. */
  stored?: "f16" | "int8";
  /** The int8 tensor whose scales are bound. */
  scalesOf?: string;
}

/** What a dispatch binds: the group, and the textures in it, each with the tensor that it must be a copy of. */
export interface Bound {
  /** What a pass is given. */
  group: GPUBindGroup;
  /** In no order. */
  shadows: readonly { shadow: Shadow; tensor: Tensor }[];
}

let kernelIds = 0;
let bufferIds = 0;
const bufferId = new WeakMap<GPUBuffer, number>();
function idOf(buffer: GPUBuffer): number {
  let id = bufferId.get(buffer);
  if (id === undefined) bufferId.set(buffer, id = bufferIds++);
  return id;
}

/** A compiled kernel. Record it with {@link Recorder.dispatch}. */
export class Kernel {
  readonly #id = kernelIds++;

  /** Made by {@link compile}. */
  constructor(
    private readonly gpu: Device,
    readonly label: string,
    readonly pipeline: GPUComputePipeline,
    private readonly layout: GPUBindGroupLayout,
    private readonly declarations: Declaration[],
  ) {}

  /**
   * The bind group for these tensors, made once for each set of buffers and kept while all of them live.
   *
   * @throws {RangeError} when a name is missing or unknown, a tensor was destroyed or is larger than a binding, or one that is
   *   written is also something else
   */
  bind(given: Bindings): Bound {
    const bindings: Bindings = { ...given };
    this.gpu.textures.begin();
    let key = `${this.#id};`;
    const shadows: { name: string; shadow: Shadow; tensor: Tensor }[] = [];
    for (const declaration of this.declarations) {
      const { name, access } = declaration;
      const tensor = boundTo(declaration, given);
      if (!tensor) throw new RangeError(`Cannot bind ${this.label} as it needs ${name}: not given`);
      checkTensor(tensor);
      bindings[name] = tensor;
      key += `${idOf(tensor.buffer)}:${tensor.offset}:${tensor.byteLength}:${tensor.type};`;
      if (isTexture(access) && tensor.byteLength <= this.gpu.maxBindingBytes) {
        const shadow = this.gpu.textures.of(tensor, access);
        shadows.push({ name, shadow, tensor });
        key += `${shadow.id};`;
      }
    }
    const known = this.gpu.bindGroups.get(key);
    if (known) return { group: known, shadows };
    const names = Object.keys(given);
    const surplus = names.filter((name) => !this.declarations.some((d) => d.name === name));
    if (surplus.length > 0) {
      throw new RangeError(`Cannot bind ${this.label} as it declares no ${surplus.join(", ")}`);
    }
    const entries = this.declarations.map(({ name, binding, stored, access }) => {
      const { buffer, offset, byteLength, label, type } = bindings[name];
      const found = type === "f16" || type === "int8" ? type : undefined;
      if (stored !== found) {
        throw new RangeError(
          `Cannot bind ${label} to ${this.label} as ${name} must ` +
            `${stored ? `be ${stored}` : `not be ${found}`}: ${type}`,
        );
      }
      if (byteLength > this.gpu.maxBindingBytes || offset % BINDING_ALIGNMENT !== 0) {
        throw new RangeError(
          `Cannot bind ${label} to ${this.label} as a binding holds ${this.gpu.maxBindingBytes} bytes at a ` +
            `multiple of ${BINDING_ALIGNMENT}: ${byteLength} bytes at ${offset}`,
        );
      }
      if (isTexture(access)) {
        return { binding, resource: shadows.find((shadow) => shadow.name === name)!.shadow.view };
      }
      // Rounded up so that a vec4 view of a tensor whose length is no multiple of 4 stays inside the buffer.
      const size = Math.min(Math.ceil(byteLength / 16) * 16, buffer.size - offset);
      return { binding, resource: { buffer, offset, size } };
    });
    this.#checkAliases(bindings);
    const group = this.gpu.device.createBindGroup({ label: this.label, layout: this.layout, entries });
    const resources = [
      ...this.declarations.map(({ name }) => bindings[name].buffer),
      ...shadows.map(({ shadow }) => shadow.texture),
    ];
    this.gpu.bindGroups.add(key, group, resources);
    return { group, shadows };
  }

  /** A CPU driver, which reads copies, would let pass what a GPU refuses. */
  #checkAliases(bindings: Bindings): void {
    for (const { name, access } of this.declarations) {
      if (access !== "read_write") continue;
      const written = bindings[name];
      for (const { name: other, access: otherAccess } of this.declarations) {
        const { buffer, offset, byteLength, label } = bindings[other];
        if (other === name || buffer !== written.buffer) continue;
        const apart = offset >= written.offset + written.byteLength || written.offset >= offset + byteLength;
        if (otherAccess === "read_write" && apart) continue;
        throw new RangeError(
          `Cannot bind ${label} to ${this.label} as ${other} while ${written.label} is written as ${name}: ` +
            `they share a buffer`,
        );
      }
    }
  }

  /** Says that what a dispatch with these bindings writes has been written. */
  wrote(bindings: Bindings): void {
    for (const { name, access } of this.declarations) {
      if (access === "read_write") this.gpu.textures.written(bindings[name].buffer);
    }
  }
}

/** The tensor for a declaration, or the scales of one. */
function boundTo({ name, scalesOf }: Declaration, bindings: Bindings): Tensor | undefined {
  return scalesOf === undefined ? bindings[name] : bindings[scalesOf]?.scales;
}

function isTexture(access: Declaration["access"]): access is GPUTextureFormat {
  return !["uniform", "read", "read_write"].includes(access);
}

function declarationsOf(
  source: string,
  { half = [], int8 = {} }: Pick<KernelSource, "half" | "int8">,
  textures: TextureReads,
): Declaration[] {
  const scales = new Map(Object.keys(int8).map((name) => [scalesName(name), name]));
  const pattern =
    /@group\(0\)\s*@binding\((\d+)\)\s*var(?:<\s*(uniform|storage)\s*(?:,\s*(read_write|read))?\s*>)?\s*(\w+)/g;
  return [...source.matchAll(pattern)].map(([, binding, space, access, variable]) => {
    const texture = textures.get(variable);
    const name = texture?.of ?? variable;
    return {
      name,
      binding: Number(binding),
      access: texture?.format ?? (space === "uniform" ? space : (access ?? "read") as "read" | "read_write"),
      stored: half.includes(name) ? "f16" : name in int8 ? "int8" : undefined,
      scalesOf: scales.get(name),
    };
  });
}

function constantLines(source: KernelSource): string {
  const lines: string[] = [];
  for (const [name, value] of Object.entries(source.constants ?? {})) {
    if (typeof value === "number") lines.push(`const ${name}: u32 = ${value}u;`);
    else {
      const text = String(value.f32);
      lines.push(`const ${name}: f32 = ${/[.e]/.test(text) ? text : text + ".0"}f;`);
    }
  }
  for (const [name, value] of Object.entries(source.flags ?? {})) {
    lines.push(`const ${name}: bool = ${value};`);
  }
  return lines.join("\n") + "\n";
}

/**
 * Compiles a kernel, or returns the one already compiled from the same source and constants.
 *
 * @throws {DeviceError} when the shader is refused: its label and the compiler's first line; the whole of what it said, and the
 * numbered source, are the cause
 */
export function compile(gpu: Device, source: KernelSource): Promise<Kernel> {
  const body = unroll(source.source, { ...source.constants, ...source.flags });
  const { half = [], int8 = {}, textures = [] } = source;
  const ofScales = textures.filter((name) => name in int8).map(scalesName);
  const { source: stored, reads } = readByTexture(
    storeInInt8(storeInHalf(body, half), int8),
    [...textures, ...ofScales],
    gpu.textureLimits,
  );
  const code = constantLines(source) + stored;
  const key = `${source.label}\n${code}`;
  let kernel = gpu.pipelines.get(key) as Promise<Kernel> | undefined;
  if (!kernel) {
    kernel = build(gpu, source.label, code, declarationsOf(code, source, reads));
    gpu.pipelines.set(key, kernel);
  }
  return kernel;
}

async function build(
  gpu: Device,
  label: string,
  code: string,
  declarations: Declaration[],
): Promise<Kernel> {
  const { device } = gpu;
  // The scope is popped before anything is awaited: a scope held across an await would catch others' errors.
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ label, code });
  const layout = device.createBindGroupLayout({
    label,
    entries: declarations.map(({ binding, access }) =>
      isTexture(access) ? textureEntry(binding, access) : {
        binding,
        visibility: GPUShaderStage.COMPUTE,
        buffer: {
          type: access === "uniform" ? "uniform" : access === "read" ? "read-only-storage" : "storage",
        },
      }
    ),
  });
  const pipeline = device.createComputePipeline({
    label,
    layout: device.createPipelineLayout({ label, bindGroupLayouts: [layout] }),
    compute: { module, entryPoint: "main" },
  });
  const error = await device.popErrorScope();
  if (error) {
    const numbered = code.split("\n").map((line, index) => `${String(index + 1).padStart(4)} | ${line}`).join(
      "\n",
    );
    const said = error.message.trim();
    throw new DeviceError(`Cannot compile the shader ${label}: ${said.split("\n")[0]}`, {
      cause: new SyntaxError(`${said}\n${numbered}`),
    });
  }
  return new Kernel(gpu, label, pipeline, layout, declarations);
}
