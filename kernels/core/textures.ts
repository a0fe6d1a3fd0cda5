/**
 * Copies of tensors as storage textures, for CPU drivers. Such a driver loads a vector of eight lanes from storage lane by
 * lane; from a storage texture it takes two fifths of the time or less, and half of what a sampled texture takes, which has
 * levels (docs/log.md). That pays for the copy wherever an element is read more than once. A kernel is written for
 * storage; which of its variables a CPU driver reads by texture is said when it is compiled, and its source is changed so.
 *
 * @module
 */
import { freeBinding, replaceReads, storageElement } from "./wgsl.ts";

/**
 * Texels in a row of every texture, and rows in a layer: powers of two, so that a place is a few bits of arithmetic away
 * from an index. Behind each row are as many vectors of four as fill a line of the processor's cache: rows of a matrix that
 * are a power of two apart would else all have their places in the same few lines of it.
 */
const [ROW, LAYER, PADDING] = [256, 8192, 4];
/**
 * Bytes of textures in use; where a dispatch needs more, the longest unused make place. With those that gave place, and
 * are kept for the next of their size, twice as many.
 */
const CAPACITY = 256 << 20;

/** How elements that storage can hold stand in a texture. */
const TEXELS: Record<string, { format: GPUTextureFormat; bytes: number; read: string }> = {
  vec4f: { format: "rgba32float", bytes: 16, read: "" },
  vec2f: { format: "rg32float", bytes: 8, read: ".xy" },
  f32: { format: "r32float", bytes: 4, read: ".x" },
  vec2u: { format: "rg32uint", bytes: 8, read: ".xy" },
  u32: { format: "r32uint", bytes: 4, read: ".x" },
};

/** The function that reads element `at` of a variable's texture. */
function reader(name: string, element: string, read: string): string {
  const [row, layer] = [Math.log2(ROW), Math.log2(ROW * LAYER)];
  const place = `vec2u(at & ${ROW - 1}u, (at >> ${row}u) & ${LAYER - 1}u), at >> ${layer}u`;
  return `fn texel_of_${name}(at: u32) -> ${element} { return textureLoad(${name}, ${place})${read}; }\n`;
}

/** What is copied: a tensor, as far as it matters here. */
export interface Region {
  /** Name in error messages and captures. */
  readonly label: string;
  /** Where its elements are. */
  readonly buffer: GPUBuffer;
  /** Bytes from the start of the buffer. */
  readonly offset: number;
  /** How many of them there are. */
  readonly byteLength: number;
}

/** The textures that a source reads: for each variable, the storage variable that it is a copy of, and its format. */
export type TextureReads = ReadonlyMap<string, { of: string; format: GPUTextureFormat }>;

/** What kernels can read by texture: how many variables each, and in which formats. */
export interface TextureLimits {
  /** Variables of one kernel. */
  readonly most: number;
  /** Formats of the textures. */
  readonly formats: ReadonlySet<GPUTextureFormat>;
}

/** Of a GPU, whose kernels read storage. */
export const NO_TEXTURES: TextureLimits = { most: 0, formats: new Set() };

/** What a CPU driver's kernels can read by texture: OpenGL, for one, knows none with two numbers to a texel. */
export async function textureLimits(device: GPUDevice): Promise<TextureLimits> {
  const formats = new Set<GPUTextureFormat>();
  for (const { format } of Object.values(TEXELS)) {
    device.pushErrorScope("validation");
    device.createBindGroupLayout({ entries: [textureEntry(0, format)] });
    if (await device.popErrorScope() === null) formats.add(format);
  }
  return { most: device.limits.maxStorageTexturesPerShaderStage, formats };
}

/** How a texture is bound. */
export function textureEntry(binding: number, format: GPUTextureFormat): GPUBindGroupLayoutEntry {
  const storageTexture = { access: "read-only", format, viewDimension: "2d-array" } as const;
  return { binding, visibility: GPUShaderStage.COMPUTE, storageTexture };
}

/**
 * The source with what it reads of storage variables `names`, as `name[…]`, read from textures, as far as these `limits`
 * go. Of a variable that the kernel writes too, what stood there before the dispatch: an element may not be read after it
 * was written.
 *
 * @throws {SyntaxError} when one is not declared, or holds what no texture can
 */
export function readByTexture(
  source: string,
  names: readonly string[],
  { most, formats }: TextureLimits,
): { source: string; reads: TextureReads } {
  const reads = new Map<string, { of: string; format: GPUTextureFormat }>();
  let result = source;
  for (const storage of names) {
    if (reads.size === most) break;
    const { element, declaration } = storageElement(result, storage);
    const texel = TEXELS[element];
    if (!texel) throw new SyntaxError(`Cannot read ${storage} by texture as none holds this: ${declaration}`);
    if (!formats.has(texel.format)) continue;
    const written = declaration.includes("read_write");
    const name = written ? `${storage}_before` : storage;
    const texture = `var ${name}: texture_storage_2d_array<${texel.format}, read>`;
    result = written
      ? `@group(0) @binding(${freeBinding(result)}) ${texture};\n${result}`
      : result.replace(declaration, texture);
    reads.set(name, { of: storage, format: texel.format });
    result = reader(name, element, texel.read) +
      replaceReads(result, storage, (index) => `texel_of_${name}(${index})`);
  }
  return { source: result, reads };
}

/** A tensor's elements as a texture. */
export interface Shadow {
  /** Tells it from all others. */
  readonly id: number;
  /** What is bound. */
  readonly view: GPUTextureView;
  /** What it is a view of. */
  readonly texture: GPUTexture;
  /** Whether the tensor may have been written since it was copied. */
  stale: boolean;
}

interface Entry extends Shadow {
  readonly key: string;
  readonly buffer: GPUBuffer;
  readonly size: string;
  readonly bytes: number;
  used: number;
}

let ids = 0;

/** Bytes that textures take on a device at most, but for those of the dispatch under way. */
export function textureCapacity({ adapter }: { adapter: { software: boolean } }): number {
  return adapter.software ? 2 * CAPACITY : 0;
}

/** The textures of a device. */
export class Textures {
  /** By buffer, then by region and format. */
  readonly #entries = new Map<GPUBuffer, Map<string, Entry>>();
  /**
   * Textures that gave place, the oldest first. Commands run in order: what is recorded from now on may have them anew.
   * Only what is over twice the capacity is destroyed, and its memory is held until the commands that use it have run: a
   * step that reads many times what textures may take, recorded long before it runs, would hold gigabytes.
   */
  readonly #retired: { texture: GPUTexture; size: string; bytes: number }[] = [];
  #bytes = 0;
  #uses = 0;
  /** Uses before those of the dispatch under way. */
  #usesBefore = 0;

  /**
   * Textures on a device.
   *
   * @param forget called with each texture that is about to be destroyed
   * @param capacity bytes of textures in use; with those that gave place, twice as many
   */
  constructor(
    private readonly device: GPUDevice,
    private readonly forget: (texture: GPUTexture) => void,
    private readonly capacity: number = CAPACITY,
  ) {}

  /** Bytes of the textures that are kept. */
  get bytes(): number {
    return this.#bytes;
  }

  /** To be told of every dispatch before it asks for its textures: none of them is taken from it. */
  begin(): void {
    this.#usesBefore = this.#uses;
  }

  /** The tensor's texture, which is stale at first. */
  of({ label, buffer, offset, byteLength }: Region, format: GPUTextureFormat): Shadow {
    const key = `${offset}:${byteLength}:${format}`;
    let entry = this.#entries.get(buffer)?.get(key);
    if (!entry) {
      const texels = Math.ceil(byteLength / texelBytes(format));
      const width = texels > ROW ? ROW + PADDING : texels;
      // Few sizes, so that one can take another's place.
      const rows = 2 ** Math.ceil(Math.log2(Math.ceil(texels / ROW)));
      const [height, layers] = [Math.min(rows, LAYER), Math.ceil(rows / LAYER)];
      const size = `${width} x ${height} x ${layers} ${format}`;
      const bytes = width * height * layers * texelBytes(format);
      const texture = this.#makeRoom(bytes, size) ?? this.device.createTexture({
        label: `${label} as texture`,
        size: [width, height, layers],
        format,
        usage: GPUTextureUsage.STORAGE_BINDING | GPUTextureUsage.COPY_DST,
      });
      entry = {
        key,
        buffer,
        size,
        bytes,
        texture,
        view: texture.createView({ dimension: "2d-array" }),
        id: ids++,
        stale: true,
        used: 0,
      };
      this.#bytes += bytes;
      // Another part of this buffer may just have given place, and the buffer's entries with it.
      const ofBuffer = this.#entries.get(buffer);
      if (ofBuffer) ofBuffer.set(key, entry);
      else this.#entries.set(buffer, new Map([[key, entry]]));
    }
    entry.used = this.#uses++;
    return entry;
  }

  /** Records the copy that makes a shadow its tensor's image. */
  refresh(encoder: GPUCommandEncoder, shadow: Shadow, { buffer, offset, byteLength }: Region): void {
    const { texture } = shadow;
    const bytes = texelBytes(texture.format);
    const texels = Math.ceil(byteLength / bytes);
    /** `width` texels of each of `height` rows of each of `layers`, from texel `first` on, which begins a row or a layer. */
    const copy = (first: number, width: number, height = 1, layers = 1): void => {
      if (width * height * layers === 0) return;
      const source = {
        buffer,
        offset: offset + first * bytes,
        bytesPerRow: ROW * bytes,
        rowsPerImage: LAYER,
      };
      const origin = [0, Math.floor(first / ROW) % LAYER, Math.floor(first / (ROW * LAYER))];
      encoder.copyBufferToTexture(source, { texture, origin }, [width, height, layers]);
    };
    const inWholeLayers = texels - texels % (ROW * LAYER);
    const inWholeRows = texels - texels % ROW;
    copy(0, ROW, LAYER, inWholeLayers / (ROW * LAYER));
    copy(inWholeLayers, ROW, (inWholeRows - inWholeLayers) / ROW);
    copy(inWholeRows, texels - inWholeRows);
    shadow.stale = false;
  }

  /** To be told of every write to a buffer. */
  written(buffer: GPUBuffer): void {
    for (const entry of this.#entries.get(buffer)?.values() ?? []) entry.stale = true;
  }

  /** Makes every texture stale, as if all tensors had been written. */
  expire(): void {
    for (const buffer of this.#entries.keys()) this.written(buffer);
  }

  /** To be told of every buffer that is destroyed, when nothing is being recorded that uses it. */
  drop(buffer: GPUBuffer): void {
    for (const entry of [...this.#entries.get(buffer)?.values() ?? []]) {
      this.#remove(entry);
      this.forget(entry.texture);
      entry.texture.destroy();
    }
  }

  /** To be told when everything that was recorded has been submitted: only then may what gave place be destroyed. */
  submitted(): void {
    let bytes = this.#bytes + this.#retired.reduce((sum, retired) => sum + retired.bytes, 0);
    while (bytes > 2 * this.capacity && this.#retired.length > 0) {
      const { texture, bytes: freed } = this.#retired.shift()!;
      texture.destroy();
      bytes -= freed;
    }
  }

  #remove({ buffer, key, bytes }: Entry): void {
    const ofBuffer = this.#entries.get(buffer)!;
    ofBuffer.delete(key);
    if (ofBuffer.size === 0) this.#entries.delete(buffer);
    this.#bytes -= bytes;
  }

  /** Retires textures until `bytes` more fit; gives back one of the same size for reuse where there is one. */
  #makeRoom(bytes: number, size: string): GPUTexture | undefined {
    while (this.#bytes + bytes > this.capacity) {
      const unused = [...this.#entries.values()].flatMap((ofBuffer) => [...ofBuffer.values()])
        .filter(({ used }) => used < this.#usesBefore)
        .sort((a, b) => a.used - b.used);
      const entry = unused.find((candidate) => candidate.size === size) ?? unused[0];
      if (!entry) break;
      this.#remove(entry);
      this.forget(entry.texture);
      if (entry.size === size) return entry.texture;
      this.#retired.push(entry);
    }
    const again = this.#retired.findIndex((texture) => texture.size === size);
    return again < 0 ? undefined : this.#retired.splice(again, 1)[0].texture;
  }
}

function texelBytes(format: GPUTextureFormat): number {
  return Object.values(TEXELS).find((texel) => texel.format === format)!.bytes;
}
